"""The seam between independent tasks and what runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from gimp_fast.errors import GimpError

Result = TypeVar("Result")
POLL_SECONDS = 0.1
_is_unwanted: ContextVar[Callable[[], bool]] = ContextVar("is_unwanted", default=lambda: False)


class LostTaskError(GimpError):
    """The process that ran a task died, and so did those that it was given to afterwards."""


class Engine(Protocol):
    """Runs independent tasks, several at a time.

    A context manager: leaving it drops tasks that wait, and asks those that run to end. What they
    raise is the exception of their future; that of a task whose process died is a
    :class:`LostTaskError`.
    """

    def submit(self, function: Callable[..., Result], /, *arguments: Any) -> Future[Result]:
        """The future result of a function, which is importable by name; all can be pickled."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *exception: object) -> None: ...


def as_completed(
    futures: Collection[Future[Result]], check: Callable[[], None] = lambda: None
) -> Iterator[Future[Result]]:
    """The futures in the order in which they end; ``check`` is called in between, and may raise."""
    ended: SimpleQueue[Future[Result]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)
    for _ in futures:
        while True:
            check()
            with contextlib.suppress(Empty):
                yield ended.get(timeout=POLL_SECONDS)
                break


def is_unwanted() -> bool:
    """Whether nobody waits for the task that asks this: one that takes long should end."""
    return _is_unwanted.get()()


def call_until(
    unwanted: Callable[[], bool], function: Callable[..., Result], arguments: tuple[Any, ...]
) -> Result:
    """The result of a task, which learns from ``unwanted`` that it should end."""
    token = _is_unwanted.set(unwanted)
    try:
        return function(*arguments)
    finally:
        _is_unwanted.reset(token)


def pass_on(
    outcome: Callable[[], Result],
    future: Future[Result],
    in_our_words: Callable[[BaseException], GimpError | None],
) -> None:
    """End a future with what a function returns or raises, which may be said in other words."""
    try:
        result = outcome()
    except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
        future.set_exception(in_our_words(error) or error)
    else:
        future.set_result(result)
