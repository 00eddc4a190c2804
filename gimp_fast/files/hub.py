"""Folders of the Hugging Face hub: addresses, downloads and uploads, by the hub's own client.

The client keeps the token and the cache, and knows ``HF_ENDPOINT``, ``HF_TOKEN`` and
``HF_HUB_OFFLINE``; nothing here reads or prints a token.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

from gimp_fast import __version__
from gimp_fast.errors import GimpError, one_line

_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")
_CLIENT = {"library_name": "gimp_fast", "library_version": __version__}


@dataclass(frozen=True)
class HubAddress:
    """A repository of models, ``organisation/name``, and a revision; None for its main one."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def hub_address(path: str | Path) -> HubAddress | None:
    """The address that a path spells, or None for a path of this machine.

    ``hf:/org/name`` counts too: that is what ``Path("hf://org/name")`` makes of it.

    Raises:
        GimpError: it begins as an address and is none.
    """
    text = str(path)
    if not text.startswith("hf:/"):
        return None
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise GimpError(
            f"found {text[:200]!a}; expected hf://ORGANISATION/NAME, with @REVISION after it or not"
        )
    return HubAddress(*match.groups())


def download(address: HubAddress, files: Sequence[str]) -> Path:
    """The folder of the client's cache that holds the files of a repository.

    Args:
        address: of the repository.
        files: names and patterns; others are not fetched.

    Raises:
        GimpError: no such repository or revision, no permission, no network, no client.
    """
    hub = _client()
    with _errors(hub, address):
        # One file at a time: where one fails, the client's threads close each other's connection.
        folder = hub.snapshot_download(
            address.repository,
            revision=address.revision,
            allow_patterns=list(files),
            max_workers=1,
            **_CLIENT,
        )
    return Path(folder)


def upload(
    address: HubAddress,
    files: Mapping[str, Path | bytes],
    *,
    private: bool,
    message: str,
    replaced: Sequence[str],
) -> str:
    """Put files into a repository by one commit, and make it if needed; returns the commit's URL.

    Args:
        address: of the repository; its revision is not used.
        files: name in the repository -> a file, or its contents.
        private: whether a new repository is; one that is there stays as it is.
        message: of the commit.
        replaced: patterns; what is there by such a name and not among ``files`` is removed.

    Raises:
        GimpError: no permission, no network, no client, or files that the hub refuses.
    """
    hub, name = _client(), address.repository
    with _errors(hub, address):
        api = hub.HfApi(**_CLIENT)
        api.create_repo(name, private=private, exist_ok=True)
        there = [file for file in api.list_repo_files(name) if file not in files]
        changes = [hub.CommitOperationAdd(file, content) for file, content in files.items()]
        changes += [
            hub.CommitOperationDelete(file)
            for file in there
            if any(fnmatch(file, pattern) for pattern in replaced)
        ]
        return str(api.create_commit(name, changes, commit_message=message).commit_url)


def _client() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise GimpError(
            "the Hugging Face hub needs its client: pip install 'gimp-fast[hub]'"
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _errors(hub: ModuleType, address: HubAddress) -> Iterator[None]:
    """Turn what the client raises into a GimpError that says what to do."""
    known = hub.errors
    # Those of connections are of its HTTP library, which is another in each version of the client.
    raised = (*known.HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
    try:
        yield
    except raised as error:
        # Without the client's own text where ours says it: that is many lines of advice.
        if isinstance(error, known.RepositoryNotFoundError):
            status = getattr(error.response, "status_code", 404)
            found = "access refused" if status in (401, 403) else "no such repository"
            why = (
                f"found {found}; expected one that is public, or yours. `hf auth login`, or "
                "HF_TOKEN, says who you are"
            )
        elif isinstance(error, known.RevisionNotFoundError):
            why = f"found no revision '{address.revision}'; expected a branch, tag or commit of it"
        elif hub.constants.HF_HUB_OFFLINE:
            why = (
                "found no copy in the cache of this machine, and HF_HUB_OFFLINE forbids to fetch "
                "one; run the command once without it"
            )
        elif isinstance(error, known.LocalEntryNotFoundError):
            why = f"found no copy in the cache, and no way to the hub ({one_line(error)})"
        else:
            why = f"the hub refused, or cannot be reached ({one_line(error)})"
        raise GimpError(f"{address}: {why}") from error
