"""Opening folders and archives that may be damaged or hostile: nothing is read without a limit."""

from __future__ import annotations

import math
import os
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from ...errors import InputError
from ...files import check_regular_file

# What reading a file of a damaged archive raises. Python reports a password and a compression that
# it lacks as RuntimeError.
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    MemoryError,
)
try:
    from lzma import LZMAError
except ImportError:  # a Python without it reads no such archive
    pass
else:
    DAMAGED += (LZMAError,)

# Bytes of one file. The largest JSON of the official sites has 590 MB, the largest image 10 MB. An
# XML takes up to 30 times its size in memory.
MAX_BYTES = {".json": 1 << 30, ".xml": 16 << 20}
MAX_FILE_BYTES = 128 << 20
# Small enough that what one step of a dense compression yields (bzip2: 20,000 to 1) fits memory.
_STEP = {zipfile.ZIP_STORED: 1 << 20, zipfile.ZIP_DEFLATED: 1 << 20}
_DENSE_STEP = 1 << 12


@dataclass
class Opened:
    """What a source holds.

    Attributes:
        read: {name: what reads it}.
        left_out: names of what is not a regular file.
    """

    read: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def open_source(path: str, least_limit: int = 0) -> Opened:
    """The files of a folder, a .zip or .tar archive or a single .json file.

    Args:
        path: of the source.
        least_limit: bytes that a file of any name may have, where its own limit is lower.

    Raises:
        InputError: it is none of these, has a password, or cannot be listed.
    """
    if os.path.isdir(path):
        return _open_folder(Path(os.path.abspath(path)), least_limit)  # "." has a name then
    if not os.path.lexists(path):
        raise InputError(f"`source` {path} does not exist")
    check_regular_file(path)
    if path.endswith(".json"):
        return Opened({os.path.basename(path): lambda: _read_file(path, least_limit)})
    try:
        if zipfile.is_zipfile(path):
            return _open_zip(path, least_limit)
        if tarfile.is_tarfile(path):
            return _open_tar(path, least_limit)
    except InputError:
        raise
    except (*DAMAGED, OSError, ValueError) as e:
        raise InputError(f"`source` {path} is cut off or damaged: {e}") from e
    raise InputError(f"`source` {path} is not a folder or a whole .zip or .tar archive")


def _check_size(name: str, size: int, least_limit: int) -> int:
    """`size`, where a file of this name may have so many bytes; ValueError where it may not."""
    most = MAX_BYTES.get(os.path.splitext(name)[1].lower(), MAX_FILE_BYTES)
    most = max(most, least_limit)
    if size > most:
        raise ValueError(
            f"it claims {size} bytes, and such a file may have {most} at most; "
            f"`max_gib` {math.ceil(size / 2**30)} allows it"
        )
    return size


def _read_exactly(file: IO[bytes], size: int, step: int = 1 << 20) -> bytes:
    """All of an open file, which claims `size` bytes; one that has more or fewer is damaged."""
    content = bytearray()
    while len(content) <= size and (part := file.read(min(step, size + 1 - len(content)))):
        content += part
    if len(content) != size:
        raise ValueError(f"it claims {size} bytes and has {'more' if content[size:] else 'fewer'}")
    return bytes(content)


def _read_file(path: str | Path, least_limit: int) -> bytes:
    # It is opened without waiting: a pipe may stand there since the folder was listed.
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with os.fdopen(descriptor, "rb") as f:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        return _read_exactly(f, _check_size(os.fspath(path), status.st_size, least_limit))


def _open_folder(folder: Path, least_limit: int) -> Opened:
    opened = Opened()
    for file in _files_below(folder, opened.left_out):
        name = Path(file).relative_to(folder.parent).as_posix()
        opened.read[name] = partial(_read_file, file, least_limit)
    return opened


def _files_below(top: Path, left_out: list[str]) -> Iterator[str]:
    """Paths of files, through links too but for those to a folder that they stand in."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(top), frozenset())]
    while waiting:
        folder, above = waiting.pop()
        status = os.stat(folder)
        identity = status.st_dev, status.st_ino
        if identity in above:
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    mode = entry.stat().st_mode
                except FileNotFoundError:  # a link to what is missing, told when it is needed
                    mode = stat.S_IFREG
                except OSError:  # a link to itself
                    mode = 0
                if stat.S_ISDIR(mode):
                    waiting.append((entry.path, above | {identity}))
                elif stat.S_ISREG(mode):
                    yield entry.path
                else:
                    left_out.append(entry.path)


def _open_zip(path: str, least_limit: int) -> Opened:
    archive, lock, opened = zipfile.ZipFile(path), threading.Lock(), Opened()

    def read(info: zipfile.ZipInfo) -> bytes:
        size = _check_size(info.filename, info.file_size, least_limit)
        # An archive has one file handle for all threads.
        with lock, archive.open(info) as f:
            return _read_exactly(f, size, _STEP.get(info.compress_type, _DENSE_STEP))

    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise InputError(
                f"--source {path} is damaged: {info.filename!r} begins within another file of it"
            )
        end = info.header_offset + info.compress_size
        if info.is_dir():
            continue
        if info.flag_bits & 1:
            raise InputError(
                f"`source` {path} has files with a password, {info.filename!r} among them: unpack "
                "it and name the folder"
            )
        if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
            opened.read[info.filename] = partial(read, info)
        else:  # a link, whose content is the name of its target
            opened.left_out.append(info.filename)
    return opened


def _open_tar(path: str, least_limit: int) -> Opened:
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115 (open as long as the source is)
    except tarfile.ReadError:
        # Each jump back in a compressed stream reads it from its start.
        raise InputError(f"`source` {path} is a compressed tar: unpack it first") from None
    lock, opened = threading.Lock(), Opened()

    def read(member: tarfile.TarInfo) -> bytes:
        size = _check_size(member.name, member.size, least_limit)
        with lock:
            return _read_exactly(tar.extractfile(member), size)

    for member in tar.getmembers():
        if member.isfile():
            opened.read[member.name] = partial(read, member)
        elif not member.isdir():
            opened.left_out.append(member.name)
    return opened
