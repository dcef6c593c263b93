"""Which paths are not of this machine."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path begins with a scheme, such as https:// or s3://, for iopath's PathManager."""
    return _SCHEME.match(os.fspath(path)) is not None
