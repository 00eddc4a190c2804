"""``gimp-fast COMMAND``: finds the command; errors become one clear message and an exit code."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from gimp_fast import __version__
from gimp_fast.errors import FaultError, GimpError, StoppedError, is_out_of_memory, one_line
from gimp_fast.files.safe_text import visible

COMMANDS = {
    "extract": "find tissue in whole-slide images and encode its patches: feature files",
    "prepare": "check slides, RNA and labels and join them into a cohort folder",
    "train": "train GiMP on a cohort: genes, pretrain, finetune, evaluate",
    "predict": "apply a trained model to new patients, or export it",
    "heatmap": "draw what a trained model looks at, on slides and among genes",
    "experiments": "reproduce the paper's tables and figures on a cohort",
    "doctor": "show what was built, what can run here, and why not",
}
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: the same command with --resume goes on
EXIT_INTERRUPTED = 130


def command(main: Callable[[Sequence[str]], int | None]) -> Callable[..., int]:
    """Wrap a command's ``main(argv)``: whatever a user can mend exits with 2 and one message.

    That is bad input, and a machine that lacks something: memory, space on the disk, permissions,
    open files. ``--debug`` among the arguments shows the traceback as well.
    """

    @functools.wraps(main)
    def wrapper(argv: Sequence[str] | None = None) -> int:
        argv = sys.argv[1:] if argv is None else list(argv)
        _print_any_character()
        try:
            return main(argv) or 0
        except StoppedError as stopped:
            print(visible(str(stopped)), file=sys.stderr)
            return EXIT_STOPPED
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # The reader of our output went away (`| head`); leave quietly, as other Unix tools do.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (GimpError, OSError, MemoryError, RuntimeError, ImportError) as error:
            message = _message(error)
            if message is None:
                raise
            if "--debug" in argv:
                traceback.print_exc()
            print(f"error: {visible(message)}", file=sys.stderr)
            return EXIT_BAD_INPUT

    return wrapper


def _message(error: Exception) -> str | None:
    """What the user is told about an error; None for an error of the program."""
    if isinstance(error, FaultError) and error.is_shortened and error.listed_in is None:
        from gimp_fast.files.atomic import write_temporary

        listed = write_temporary("gimp_fast-faults", error.full_text())
        return f"{error}\nall {len(error.faults)} are listed in {listed}" if listed else str(error)
    if isinstance(error, GimpError):
        return str(error)
    if is_out_of_memory(error):
        what = f" ({one_line(error)})" if str(error) else ""
        return f"memory ran out{what}; close other programs, or raise its limit (ulimit -v)"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        advice = {
            errno.EMFILE: "; raise the limit with `ulimit -n 4096`, or use fewer workers",
            errno.ENFILE: "; close other programs",
            errno.ENOSPC: "; make room, or choose another folder",
        }
        return f"{where}{error.strerror or one_line(error)}{advice.get(error.errno, '')}"
    return None


def _print_any_character() -> None:
    """Print an escape for a character that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        f"usage: gimp-fast COMMAND [options]\n\ngimp_fast {__version__}\n\ncommands:\n{lines}\n\n"
        "`gimp-fast COMMAND --help` explains a command;"
        " `python -m gimp_fast.COMMAND` is the same.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    name, *rest = (sys.argv[1:] if argv is None else argv) or [None]
    if name in COMMANDS:
        return _run(name, rest)
    if name in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if name == "--version":
        print(f"gimp_fast {__version__}")
        return 0
    unknown = "" if name is None else f"error: unknown command '{name}'\n\n"
    print(unknown + usage(), end="", file=sys.stderr)
    return EXIT_BAD_INPUT


def _run(name: str, argv: Sequence[str]) -> int:
    try:
        run = importlib.import_module(f"gimp_fast.{name}").main
    except KeyboardInterrupt:  # while modules are loaded
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return run(argv)


if __name__ == "__main__":
    raise SystemExit(main())
