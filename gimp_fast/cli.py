"""``gimp-fast COMMAND``: finds the command; errors become one clear message and an exit code."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from gimp_fast import __version__
from gimp_fast.errors import GimpError, StoppedError
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
    """Wrap a command's ``main(argv)``: bad input exits with 2 and one message.

    ``--debug`` among the arguments shows the traceback as well.
    """

    @functools.wraps(main)
    def wrapper(argv: Sequence[str] | None = None) -> int:
        argv = sys.argv[1:] if argv is None else list(argv)
        try:
            return main(argv) or 0
        except StoppedError as stopped:
            print(visible(str(stopped)), file=sys.stderr)
            return EXIT_STOPPED
        except GimpError as error:
            if "--debug" in argv:
                traceback.print_exc()
            print(f"error: {visible(str(error))}", file=sys.stderr)
            return EXIT_BAD_INPUT
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # The reader of our output went away (`| head`); leave quietly, as other Unix tools do.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return wrapper


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
        return importlib.import_module(f"gimp_fast.{name}").main(rest)
    if name in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if name == "--version":
        print(f"gimp_fast {__version__}")
        return 0
    unknown = "" if name is None else f"error: unknown command '{name}'\n\n"
    print(unknown + usage(), end="", file=sys.stderr)
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    raise SystemExit(main())
