"""A folder that stands for the Hugging Face hub: a server with the endpoints that its client calls.

It serves this machine only, and knows repositories of models, commits, and uploads of large files
by git-lfs. What it received is in its attributes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "s3cret" * 6


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repositories: name -> file -> contents, of the newest commit.
        private: names of repositories that only the owner of ``TOKEN`` may read.
        requests: method and path of every request.
        mode: how files are uploaded: ``"regular"``, inside the commit, or ``"lfs"``.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.large: dict[str, bytes] = {}
        self.mode = "regular"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str) -> str:
        """The revision of a repository: a hash of its contents, in 40 digits as git's."""
        files = sorted(self.repositories[name].items())
        return hashlib.sha1(repr(files).encode()).hexdigest()


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        words = path.strip("/").split("/")
        if words[:2] == ["api", "repos"]:
            self.create(json.loads(body))
        elif words[:2] == ["api", "validate-yaml"]:
            self.answer({"errors": [], "warnings": []})
        elif words[:2] == ["api", "models"]:
            self.of_repository("/".join(words[2:4]), words[4:], body)
        elif words[0] == "lfs":
            self.server.large[words[1]] = body
            self.answer({})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.batch(json.loads(body))
        else:
            self.file("/".join(words[:2]), words[2:])

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def answer(self, values: object, status: int = 200, code: str = "") -> None:
        self.reply(json.dumps(values).encode(), status, {"X-Error-Code": code} if code else {})

    def reply(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self.is_owner():
            self.answer({"error": "Invalid username or password."}, 401)
        elif name in self.server.repositories:
            self.answer({"url": f"{self.server.url}/{name}"}, 409)
        else:
            self.server.repositories[name] = {}
            if asked.get("visibility") == "private" or asked.get("private"):
                self.server.private.add(name)
            self.answer({"url": f"{self.server.url}/{name}"})

    def may_read(self, name: str) -> bool:
        return name in self.server.repositories and (
            name not in self.server.private or self.is_owner()
        )

    def of_repository(self, name: str, words: list[str], body: bytes) -> None:
        if not self.may_read(name):
            self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
            return
        files, action = self.server.repositories[name], words[0] if words else "revision"
        if action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            large = {name: self.server.mode for name in names if name.endswith(".safetensors")}
            told = [
                {"path": name, "uploadMode": large.get(name, "regular"), "shouldIgnore": False}
                for name in names
            ]
            self.answer({"files": told})
        elif action == "commit":
            self.take(files, body)
            oid = self.server.commit(name)
            url = f"{self.server.url}/{name}/commit/{oid}"
            self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})
        elif action == "tree":
            self.answer([
                {"type": "file", "path": path, "size": len(data), "oid": _git_id(data)}
                for path, data in files.items()
            ])  # fmt: skip
        elif words[1:] and words[1] not in ("main", self.server.commit(name)):
            self.answer({"error": "Invalid rev id"}, 404, "RevisionNotFound")
        else:
            siblings = [{"rfilename": path} for path in files]
            self.answer({"id": name, "sha": self.server.commit(name), "siblings": siblings})

    def take(self, files: dict[str, bytes], body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]

    def batch(self, asked: dict) -> None:
        objects = [
            thing | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{thing['oid']}"}}}
            for thing in asked["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def file(self, name: str, words: list[str]) -> None:
        path = "/".join(words[2:])
        if not self.may_read(name):
            self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
        elif path not in self.server.repositories[name]:
            self.answer({"error": "Entry not found"}, 404, "EntryNotFound")
        else:
            data = self.server.repositories[name][path]
            headers = {"ETag": f'"{_git_id(data)}"', "X-Repo-Commit": self.server.commit(name)}
            self.reply(data, 200, headers)


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A server, while the block runs."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
