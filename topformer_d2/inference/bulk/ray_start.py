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

# Seconds in which something must listen at the address of a cluster: Ray itself tries for minutes.
_CONNECT_WITHIN = 5.0
# What Ray's C++ writes to stderr, whatever the level, where a variable sets it.
_LEVEL_LINE = b"Set ray log level from environment variable"


def check_listening(address: str) -> None:
    """Raise InputError where nothing listens at a cluster's address; "auto" is Ray's to look up."""
    name = "`address`"
    if address == "auto":  # Ray then takes the variable's, if it is set
        address, name = os.environ.get("RAY_ADDRESS", ""), "`address` auto, by RAY_ADDRESS,"
    if address in ("", "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"{name} {address}: it takes host:port, ray://host:port or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_WITHIN).close()
    except (OSError, OverflowError, UnicodeError) as e:  # the latter two of a port or a name
        raise InputError(f"{name} {address}: no Ray answers there: {e}") from e


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
