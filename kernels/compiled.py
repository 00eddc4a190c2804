"""Compiled kernels, kept so that they are launched again without Triton's search for them.

At every launch Triton looks at each argument, builds a text of what it found, and searches its
kernels for that text: 11 to 58 µs of Python. What is kept here is found by a key that distinguishes
all that Triton distinguishes, and is launched as Triton would have done it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from triton import knobs


class Compiled(NamedTuple):
    """A kernel that has been launched once.

    Attributes:
        run, function, metadata: Triton's launcher, and its first arguments after the stream.
        constants: the compile-time arguments, in the kernel's order.
        kernel: what it was compiled from; while it is held, its id is given to no other kernel.
    """

    run: Any
    function: Any
    metadata: Any
    constants: tuple[Any, ...]
    kernel: Any

    @classmethod
    def of(cls, compiled: Any, kernel: Any, count: int, constants: dict[str, Any]) -> Compiled:
        """What to keep of Triton's result; the kernel takes ``count`` arguments before these."""
        values = tuple(constants[parameter.name] for parameter in kernel.params[count:])
        return cls(compiled.run, compiled.function, compiled.packed_metadata, values, kernel)

    def launch(self, grid: tuple[int, ...], stream: int, arguments: tuple[Any, ...]) -> None:
        x, y, z = grid if len(grid) == 3 else (*grid, 1, 1)[:3]
        # None: there are no hooks to call, see `is_watched`.
        self.run(
            x, y, z, stream, self.function, self.metadata, None, None, None,
            *arguments, *self.constants,
        )  # fmt: skip


def is_watched() -> bool:
    """True if a profiler wants to hear of launches, which Triton tells it."""
    return bool(knobs.runtime.launch_enter_hook.calls or knobs.runtime.launch_exit_hook.calls)


def specialization(kernel: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """What Triton compiles a kernel for, as far as its arguments say.

    Of a tensor its dtype, and whether it begins at a multiple of 16 bytes. Of a number its type,
    and unless the kernel says otherwise, whether it is 1 or a multiple of 16.
    """
    key: list[Any] = []
    for argument, parameter in zip(arguments, kernel.params, strict=False):
        kind = type(argument)
        if kind is int:
            size = argument.bit_length() >> 5  # 0 if it fits 32 bits
            if not parameter.do_not_specialize:
                size = 32 * size + (16 if argument % 16 == 0 else argument == 1)
            key.append(size)
        elif argument is None or kind is float or kind is bool:
            key.append(kind)
        else:
            key += (argument.dtype, argument.data_ptr() % 16 == 0)
    return key
