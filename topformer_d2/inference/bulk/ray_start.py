"""What is around the start of a Ray: the address of its cluster, signals and what it writes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator

from ...errors import InputError

# Seconds in which something must listen at the address of a cluster, and answer there: Ray itself
# tries for minutes.
_CONNECT_WITHIN, _ANSWER_WITHIN = 5.0, 30.0
# With what HTTP/2 begins, by which Ray speaks: the client's words and settings (of none), and the
# length, type and rest of the frame of settings that the server sends first.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
_FRAME, _TYPE, _SETTINGS = 9, 3, 4
# What Ray's C++ writes to stderr, whatever the level, where a variable sets it.
_LEVEL_LINE = b"Set ray log level from environment variable"


def check_address(address: str) -> None:
    """Raise InputError where no Ray is at a cluster's address; "auto" is Ray's to look up."""
    name = "`address`"
    if address == "auto":  # Ray then takes the variable's, if it is set
        address, name = os.environ.get("RAY_ADDRESS", ""), "`address` auto, by RAY_ADDRESS,"
    if address in ("", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"{name} {address}: it takes host:port, ray://host:port or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_WITHIN) as found:
            is_ray = os.environ.get("RAY_USE_TLS") == "1" or _speaks_http2(found)
    except (OSError, OverflowError, UnicodeError) as e:  # the latter two of a port or a name
        raise InputError(f"{name} {address}: no Ray answers there: {e}") from e
    if not is_ray:
        raise InputError(
            f"{name} {address}: something else than Ray answers there: name the port of Ray itself "
            "(6379 where none was chosen, 10001 of ray://), and not that of its dashboard"
        )


def _speaks_http2(connection: socket.socket) -> bool:
    connection.settimeout(_ANSWER_WITHIN)
    connection.sendall(_HELLO)
    answer = b""
    while len(answer) < _FRAME and (more := connection.recv(_FRAME - len(answer))):
        answer += more
    return len(answer) == _FRAME and answer[_TYPE] == _SETTINGS


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Within it Ray starts, and puts a handler of SIGTERM of its own in the place of this one's.

    Ray's raise SystemExit, with status 15 or 1 and without a word; nothing else there does.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def hiding_log_level() -> Iterator[None]:
    """What is written to stderr within comes at the end, without Ray's line on its log level."""
    stderr = 2  # C++ writes to the descriptor
    try:
        terminal = os.dup(stderr)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), stderr)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, stderr)
            os.close(terminal)
            file.seek(0)
            for line in file:
                if _LEVEL_LINE not in line:
                    os.write(stderr, line)
