"""``gimp-fast COMMAND``: finds the command; errors become one clear message and an exit code."""

from __future__ import annotations

import argparse
import errno
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from gimp_fast import __version__, plugins
from gimp_fast.errors import (
    FaultError,
    GimpError,
    StoppedError,
    did_you_mean,
    is_out_of_memory,
    one_line,
    one_of,
)
from gimp_fast.files.safe_text import visible

COMMANDS = {
    "extract": "find tissue in whole-slide images and encode its patches: feature files",
    "prepare": "check slides, RNA and labels and join them into a cohort folder",
    "train": "train GiMP on a cohort: genes, pretrain, finetune, evaluate",
    "predict": "apply a trained model to new patients, or export it",
    "validate": "judge a trained model on a labelled cohort that it has not seen",
    "heatmap": "draw what a trained model looks at, on slides and among genes",
    "view": "show heatmaps in a browser, over the slides in deep zoom",
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
    """What the user reads about an error; None for an error of the program."""
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


class Parser(argparse.ArgumentParser):
    """The parser of a command: named as it was called, with defaults in its help.

    What is wrong is reported in one line, with the nearest name that was perhaps meant.
    """

    def __init__(self, command: str, **settings: Any):
        super().__init__(prog=program(command), formatter_class=_Help, **settings)
        self.register("type", int, _whole_number)
        self.register("type", float, _number)

    def add_plugins(self) -> None:
        """Add ``--plugin``, whose code is imported before any name is looked up."""
        self.add_argument(
            "--plugin", action="append", default=[], metavar="FILE_OR_MODULE", help=plugins.HELP
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed = super().parse_args(args, namespace)
        plugins.use_plugins(getattr(parsed, "plugin", ()))
        return parsed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else list(args)
        self._check_flags(args)
        return super().parse_known_args(args, namespace)

    def _check_flags(self, args: Sequence[str]) -> None:
        """Else a misspelt flag that is required would be reported as missing."""
        flags = self._option_string_actions
        for text in args:
            if text == "--":
                return
            flag = text.partition("=")[0]
            known = any(name.startswith(flag) for name in flags)  # argparse completes them
            if flag.startswith("--") and not known and " " not in flag:
                self.error(f"unknown option {flag[:80]}{did_you_mean(flag, flags)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            expected = one_of(value, action.choices)
            raise argparse.ArgumentError(action, f"found '{value}'; expected {expected}")

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"error: {message}\n`{self.prog} --help` lists the options\n")


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found '{text[:80]}'; expected a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found '{text[:80]}'; expected a number") from None


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help that ends with the default of an option, unless its text says it."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # Lines are kept where a command breaks them itself; a long one is wrapped.
        wrapped = (super(argparse.RawDescriptionHelpFormatter, self)._fill_text(line, width, indent)
                   for line in text.splitlines())  # fmt: skip
        return "\n".join(wrapped)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if isinstance(action, argparse.BooleanOptionalAction):
            # Some versions of Python add the default themselves, as True or False.
            text = text.removesuffix(" (default: %(default)s)")
            return f"{text} (default: {'on' if default else 'off'})"
        has_default = default not in (None, False, argparse.SUPPRESS) and default != ()
        if not has_default or default == [] or "default" in text:
            return text
        several = isinstance(default, (list, tuple))
        shown = " ".join(map(str, default)) if several else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})".lstrip()


def program(command: str) -> str:
    """How the command was called, for its help: ``gimp-fast train``."""
    name = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    called = name.removesuffix(".__main__")
    if called in ("gimp_fast", "gimp_fast.cli"):
        return f"python -m {called} {command}"
    return f"python -m {called}" if called == f"gimp_fast.{command}" else f"gimp-fast {command}"


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
    if name is None:
        print(usage(), end="", file=sys.stderr)
    else:
        expected = one_of(name, COMMANDS)
        print(f"error: unknown command '{name}'; expected {expected}", file=sys.stderr)
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
