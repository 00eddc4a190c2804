"""What a pickle asks for, found without loading it: the names of functions and classes in it."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from gimp_fast.errors import DAMAGE_ERRORS

_LONGEST = 64 << 20  # bytes of a pickle that are looked through; one of tensors has kilobytes
# What torch.save writes of tensors, in dictionaries and lists.
_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.storage\.\w*Storage"
    r"|torch\.\w*Storage|torch\.(Size|device|Tensor|bool|half|float|double|long|int|short)"
    r"|torch\.(uint|int|float|bfloat|complex)\d\w*|torch\.(_tensor|serialization)\.\w+"
)
_BY_NAME = ("GLOBAL", "INST")  # their argument is "module name"


def code_in_pickle(file: Path) -> str | None:
    """The first function or class that a file asks for besides tensors; None if there is none.

    Args:
        file: bare pickles of any protocol, or an archive of torch.save. In any other file nothing
            is found.
    """
    for data in _pickles(file):
        for name in _names(data):
            if not _TENSORS.fullmatch(name):
                return name
    return None


def pickle_protocol(file: Path) -> int:
    """The protocol of the first pickle in a file; 0 if it names none."""
    start = next(_pickles(file), b"")[:2]
    return start[1] if len(start) == 2 and start[:1] == b"\x80" else 0


def _pickles(file: Path) -> Iterator[bytes]:
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as stream:
                yield stream.read(_LONGEST)
            return
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    with archive.open(name) as stream:
                        yield stream.read(_LONGEST)
    except (*DAMAGE_ERRORS, zipfile.BadZipFile):
        return  # damaged: the names before the damage were found


def _names(data: bytes) -> Iterator[str]:
    """``module.name`` of all that the pickles in ``data``, one after the other, ask for."""
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        texts: list[str] = []  # pushed so far; two of them name what STACK_GLOBAL asks for
        memo: dict[int, str] = {}
        pushed = ""
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in _BY_NAME:
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(texts[-2:])
                elif opcode.name.startswith("EXT"):
                    yield f"extension {argument}"
                elif opcode.name == "MEMOIZE":
                    memo[len(memo)] = pushed
                elif "PUT" in opcode.name:
                    memo[argument] = pushed
                else:
                    is_get = "GET" in opcode.name
                    pushed = memo.get(argument, "") if is_get else argument
                    pushed = pushed if isinstance(pushed, str) else ""
                    texts += [pushed] if pushed else []
        except DAMAGE_ERRORS:
            return  # not a pickle from here on
