"""The interpreter of Triton, without work that it throws away or does again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quick_interpreter():
    """Interpret kernels in less than half the time, with the same results.

    - The interpreter computes the range of every integer, but asserts it in debug mode only.
    - Whenever a kernel calls a function, it searches the whole language for what to replace, all of
      which it has replaced when the kernel began.
    - It makes a table of all types for every value, to look up one.
    """
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    builder, core = interpreter.interpreter_builder, interpreter.tl.core
    assert not builder.options.debug
    patch_lang, type_of_scalar = interpreter._patch_lang, cache(interpreter._get_np_dtype)

    @cache
    def languages(function):
        known = (interpreter.tl, core)
        return [value for value in function.__globals__.values() if any(value is k for k in known)]

    def patch_lang_once(function):
        if any(core.is_builtin(language.load) for language in languages(function)):
            return patch_lang(function)
        return interpreter._LangPatchScope()

    def get_np_dtype(kind):
        scalar = kind.element_ty if isinstance(kind, core.block_type) else kind
        is_pointer = isinstance(scalar, core.pointer_type)
        return type_of_scalar(core.uint64 if is_pointer else scalar)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))
        patch.setattr(interpreter, "_patch_lang", patch_lang_once)
        patch.setattr(interpreter, "_get_np_dtype", get_np_dtype)
        yield
