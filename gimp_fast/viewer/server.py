"""Serves heatmaps to a browser on this machine: read-only, on loopback, behind a secret address."""

from __future__ import annotations

import hmac
import json
import secrets
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from gimp_fast.errors import GimpError
from gimp_fast.viewer.answers import Answer, Answers
from gimp_fast.viewer.folders import MapFolder

if TYPE_CHECKING:  # which would load torch
    from gimp_fast.heatmaps.protocols import ImageFolder

LOOPBACK = "127.0.0.1"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_IDLE = 60  # seconds after which a silent connection is closed


class ViewServer(ThreadingHTTPServer):
    """A server of maps; ``serve_forever`` answers until it is interrupted.

    It listens on loopback alone, answers GET and HEAD alone, and only where the address begins with
    a random token and names this machine as its host: no other page in the browser, and no other
    user of the machine, can read from it.

    Args:
        folders: of maps, from :func:`open_maps`; several are shown side by side.
        images: of slides, such as :class:`gimp_fast.wsi.images.SlideImages`; None shows the
            patches alone.
        port: to listen on; 0 takes a free one.

    Attributes:
        token: of the address.

    Raises:
        GimpError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(
        self, folders: Sequence[MapFolder], images: ImageFolder | None = None, *, port: int = 0
    ):
        self.answers = Answers(folders, images)
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise GimpError(
                f"--port {port}: cannot be used ({error}); expected a free port, or 0 for any"
            ) from error

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def handle_error(self, request: object, client_address: object) -> None:
        # A browser that scrolls on drops the tiles it no longer needs.
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "gimp_fast", ""
    timeout = _IDLE

    def do_GET(self) -> None:
        status, answer = self._answer()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        kept = "private, max-age=86400, immutable" if answer.keep else "no-store"
        self.send_header("Cache-Control", kept)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    do_HEAD = do_GET

    def _answer(self) -> tuple[HTTPStatus, Answer]:
        # A page of another site could reach us under a name of its own (DNS rebinding).
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            return HTTPStatus.FORBIDDEN, _error("this server answers to its own address alone")
        token, slash, address = self.path.removeprefix("/").partition("/")
        given = token.encode("utf-8", "surrogateescape")
        if not (slash and hmac.compare_digest(given, self.server.token.encode("ascii"))):
            return HTTPStatus.NOT_FOUND, _error("not found")
        try:
            found = self.server.answers.to(address)
        except GimpError as error:
            return HTTPStatus.UNPROCESSABLE_ENTITY, _error(str(error))
        if found is None:
            return HTTPStatus.NOT_FOUND, _error("not found")
        return HTTPStatus.OK, found

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each tile would hide the address in the terminal."""


def _error(text: str) -> Answer:
    return Answer(json.dumps({"error": text}).encode("utf-8"), "application/json")
