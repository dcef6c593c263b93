"""A server of a page on this machine, with the headers that give WebAssembly its threads."""

from __future__ import annotations

import errno
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..errors import InputError, Terminated
from .site import HEADERS

ADDRESS = "127.0.0.1"
# The system's table may lack them or name them otherwise.
_KINDS = {
    **dict.fromkeys((".js", ".mjs"), "text/javascript"),
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
}
DEFAULT_PORT = 8000


class SiteServer(ThreadingHTTPServer):
    """Serves the files of a folder to this machine alone.

    `serve_forever` runs until `shutdown`; `server_close` lets the port go.
    """

    daemon_threads = True
    # A port that another program listens on is never shared; on Windows the option would.
    allow_reuse_address = os.name == "posix"

    def __init__(self, folder: str | Path, port: int = DEFAULT_PORT):
        """
        Args:
            folder: of the page.
            port: 0 = any that is free.

        Raises:
            InputError: the port is taken, may not be used, or is no port.
        """
        if not 0 <= port <= 65535:
            raise InputError(f"`port` is {port}; it takes 0 to 65535")
        try:
            super().__init__((ADDRESS, port), partial(_Handler, directory=str(folder)))
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                raise InputError(
                    f"`port` {port} is in use by another program: name another, or 0 for any that "
                    "is free"
                ) from e
            if e.errno == errno.EACCES:
                raise InputError(f"`port` {port} may not be used: name one above 1023") from e
            raise

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def run(self) -> None:
        """Print the address, serve until Ctrl-C, and let the port go."""
        with self:
            print(f"{self.url} shows the page; Ctrl-C ends", flush=True)
            try:
                self.serve_forever()
            except KeyboardInterrupt as e:
                if isinstance(e, Terminated):
                    raise

    def handle_error(self, *_: object) -> None:
        """Say nothing where a browser leaves in the middle of a file."""


def check_port(port: int) -> None:
    """InputError, before a page is made, where SiteServer could not have this port."""
    with SiteServer(".", port):
        pass


class _Handler(SimpleHTTPRequestHandler):
    def guess_type(self, path: str | os.PathLike) -> str:
        """The media type of a file, by its name."""
        return _KINDS.get(Path(path).suffix) or super().guess_type(path)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: object) -> None:
        """No folder is listed."""
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing: the browser's console tells of what is missing."""
