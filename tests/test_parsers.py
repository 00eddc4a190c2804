"""Every command's parser: how it names itself, its defaults, its answers to typing errors."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gimp_fast import cli
from gimp_fast.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


def parser_of(command: str) -> cli.Parser:
    module = importlib.import_module(f"gimp_fast.{command}")
    if not hasattr(module, "build_parser"):
        module = importlib.import_module(f"gimp_fast.{command}.command")
    return module.build_parser()


ACTIONS = {
    f"{command} {action.option_strings[-1]}": (parser_of(command), action)
    for command in COMMANDS
    for action in parser_of(command)._actions
    if action.option_strings
}


def help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    return formatter._expand_help(action)


@pytest.mark.parametrize(("parser", "action"), ACTIONS.values(), ids=ACTIONS)
def test_every_option_has_help_and_its_default(parser, action):
    text = help_of(parser, action)
    assert text
    assert "%(" not in text
    plain = isinstance(action.default, (int, float, str)) and not isinstance(action.default, bool)
    assert not plain or action.default == "==SUPPRESS==" or "default" in text


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("doctor", "view")])
def test_out_is_a_folder_in_every_command(command):
    parser = parser_of(command)
    (out,) = [action for action in parser._actions if "--out" in action.option_strings]
    assert help_of(parser, out).startswith("folder of the ")
    assert out.type is Path


CALLS = {
    "module": (["-m", "gimp_fast.train"], "python -m gimp_fast.train"),
    "package": (["-m", "gimp_fast", "train"], "python -m gimp_fast train"),
    "module-of-a-package": (["-m", "gimp_fast.experiments"], "python -m gimp_fast.experiments"),
    "cli": (["-m", "gimp_fast.cli", "doctor"], "python -m gimp_fast.cli doctor"),
    "script": (["gimp-fast", "train"], "gimp-fast train"),
}


@pytest.mark.parametrize(("call", "program"), CALLS.values(), ids=CALLS)
def test_the_usage_names_what_was_typed(call, program, tmp_path):
    # The script that pip makes from the entry point.
    script = tmp_path / "gimp-fast"
    script.write_text("import sys\nfrom gimp_fast.cli import main\nsys.exit(main())\n")
    run = subprocess.run(
        [sys.executable, *call, "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"usage: {program} ")


MISTAKES = {
    "command": ("trian --data x", "unknown command 'trian'; .*did you mean 'train'?"),
    "option": ("train --metod abmil", "unknown option --metod; did you mean '--method'?"),
    "required": ("extract --sildes x --out y", "unknown option --sildes; did you mean '--slides'?"),
    "with-value": ("prepare --lables=x", "unknown option --lables; did you mean '--labels'?"),
    "stage": ("train --stages pretrian", "--stages: found 'pretrian'; .*did you mean 'pretrain'?"),
    "modality": ("train --modalities slides", "found 'slides'; .* did you mean 'slide'?"),
    "table": ("experiments tabel1 --data x --out y", "found 'tabel1'; .*did you mean 'table1'?"),
    "part": ("predict --run x --part tset", "found 'tset'; .*did you mean 'test'?"),
    "number": ("train --seed 1e3", "argument --seed: found '1e3'; expected a whole number"),
    "long": ("train --seed " + "1" * 5000, "expected a whole number"),
    "order": ("prepare --order hilbet", "found 'hilbet'; .*did you mean 'hilbert'?"),
    "nothing-near": ("train --zzz", r"unknown option --zzz\n"),
}  # fmt: skip


@pytest.mark.parametrize(("typed", "answer"), MISTAKES.values(), ids=MISTAKES)
def test_a_typing_error_is_one_line_with_a_suggestion(typed, answer, capsys):
    try:
        code = cli.main(typed.split())
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) <= 2
    assert re.search(answer.replace("?", r"\?"), said.err), said.err


def test_what_follows_two_dashes_is_no_option(capsys):
    with pytest.raises(SystemExit):
        parser_of("experiments").parse_args(["--data", "x", "--out", "y", "--", "--table1"])
    assert "argument TABLE: found '--table1'" in capsys.readouterr().err


def test_completed_options_are_accepted():
    assert parser_of("train").parse_args(["--pres", "demo"]).preset == "demo"
