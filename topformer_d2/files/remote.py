"""Which paths are not of this machine."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path begins with a scheme, such as https:// or s3://, for iopath's PathManager."""
    return _SCHEME.match(os.fspath(path)) is not None


def full_path(path: str) -> str:
    """A path for a message: the absolute one, or a remote one as it is."""
    return path if is_remote(path) else os.path.abspath(path)
