"""The names of methods as papers write them; records and commands have the short ones."""

from __future__ import annotations

from gimp_fast.models import available, model_class

_OTHERS = {"logistic_regression": "Logistic regression"}


def method_title(method: str) -> str:
    """The method's name for readers; the short name of a method that is not of this package."""
    if method in available():
        return model_class(method).title
    return _OTHERS.get(method, method)
