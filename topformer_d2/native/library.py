"""The compiled library of this folder's C files, where there is one.

It is compiled with the package, if there is a compiler (setup.py). Without it all that it does is
done in Python, with the same answers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from pathlib import Path

SOURCES = Path(__file__).parent
FOLDER = SOURCES  # of the library
NAMES = ("_native.so", "_native.pyd")


def sources_digest(folder: Path) -> str:
    """Of the C files and headers in a folder; a library of others is not used."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def native_library() -> ctypes.CDLL | None:
    """The library, opened at the first call in a process; None where there is none that fits."""
    return _open(FOLDER)[0]


def native_status() -> str:
    """Which form is in use, "compiled" or "in Python", and why, for a reader."""
    return _open(FOLDER)[1]


@functools.lru_cache(maxsize=8)
def _open(folder: Path) -> tuple[ctypes.CDLL | None, str]:
    path = next((folder / name for name in NAMES if (folder / name).exists()), None)
    if path is None:
        return None, "in Python: the C files were not compiled at installation"
    try:
        library = ctypes.CDLL(str(path))
        library.topformer_native_digest.restype = ctypes.c_char_p
        digest = library.topformer_native_digest().decode()
    except (OSError, AttributeError) as e:
        return None, f"in Python: {path} cannot be opened: {e}"
    if digest != sources_digest(SOURCES):
        return None, f"in Python: {path} is of other C files than those here"
    return library, f"compiled: {path.name}"
