"""The length of a video, as its container format states it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

# Boxes of an MP4 file that are read whole; the description of a video of hours has a few MB.
_MOST = 1 << 28
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_FLV_TAGS = (8, 9, 18)  # sound, pictures, description
# Bytes of an MPEG transport stream's packet, and where in it the sync byte stands; the longer ones
# (.m2ts) have a time before it.
_TS_PACKETS, _SYNC = ((188, 0), (192, 4)), b"G"
_MPEG_PACK, _MPEG_END = b"\0\0\1\xba", b"\0\0\1\xb9"
_MPEG_TAIL = 1 << 18  # bytes in which the last pack of an MPEG program stream begins


def is_cut(path: str) -> bool:
    """Whether a file is shorter than it says, or ends within a packet.

    It can be told of MP4, AVI, Matroska (WebM), WMV and FLV files. Of MPEG streams (.ts, .mpg) only
    a cut within a packet can. It is False of other files.
    """
    try:
        with open(path, "rb") as f:
            return _promised_size(f) > os.path.getsize(path)
    except (OSError, struct.error):
        return False


def counts_frames(path: str) -> bool | None:
    """Whether the container counts the frames that are shown.

    True of MP4; None of an MP4 file with an edit list that may leave frames out, and False of
    others: they have an estimate from duration and frame rate or, in AVI, count frames that were
    dropped when it was recorded.
    """
    try:
        with open(path, "rb") as f:
            if not _is_mp4(f):
                return False
            for name, start, size in _boxes(f, os.path.getsize(path)):
                if name == b"moov" and size < _MOST:
                    f.seek(start)
                    return None if _may_leave_frames_out(f.read(size)) else True
            return None
    except (OSError, struct.error):
        return None


def _is_mp4(f: BinaryIO) -> bool:
    f.seek(4)
    return f.read(4) in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def _promised_size(f: BinaryIO) -> int:
    """The bytes that a file is to have at least."""
    start = f.read(16)
    if start[:4] == b"RIFF":
        (size,) = struct.unpack("<I", start[4:8])
        # What is recorded without an end has one of these.
        return 0 if size in (0, 0xFFFFFFFF) else 8 + size
    if start[:4] == _EBML:
        return _matroska_size(f)
    if start == _ASF:
        return _asf_size(f)
    file_size = os.fstat(f.fileno()).st_size
    if start[:3] == b"FLV":
        return _flv_size(f, file_size)
    if start[:4] == _MPEG_PACK:
        return _program_stream_size(f, file_size)
    if _is_mp4(f):
        return max((start + size for _, start, size in _boxes(f, file_size)))
    return _transport_stream_size(f, file_size)


def _boxes(f: BinaryIO, file_size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and bytes of the boxes that an MP4 file consists of."""
    place = 0
    while place + 8 <= file_size:
        f.seek(place)
        size, name = struct.unpack(">I4s", f.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", f.read(8))
        elif size == 0:  # up to the end, wherever that is
            size = file_size - place
        if size < 8:
            return
        yield name, place, size
        place += size


def _may_leave_frames_out(description: bytes) -> bool:
    """Whether an edit list in a "moov" box begins elsewhere than at the first frame."""
    place = description.find(b"elst")
    while place >= 0:
        version, count = struct.unpack_from(">B3xI", description, place + 4)
        entry = struct.Struct(">QqI" if version == 1 else ">IiI")
        for i in range(min(count, 1000)):
            _, first, _ = entry.unpack_from(description, place + 12 + i * entry.size)
            if first > 0:
                return True
        place = description.find(b"elst", place + 4)
    return False


def _matroska_size(f: BinaryIO) -> int:
    f.seek(4)
    header = _matroska_number(f)
    if header is None:
        return 0
    f.seek(header, os.SEEK_CUR)
    if f.read(4) != _SEGMENT:
        return 0
    size = _matroska_number(f)
    return 0 if size is None else f.tell() + size


def _matroska_number(f: BinaryIO) -> int | None:
    """A length, whose first byte says how many bytes it has; None = unknown."""
    (first,) = struct.unpack("B", f.read(1))
    count = 9 - first.bit_length()
    if count > 8:
        return None
    rest = f.read(count - 1)
    if len(rest) < count - 1:
        return None
    ones = (1 << 7 * count) - 1
    value = int.from_bytes(bytes([first]) + rest, "big") & ones
    return None if value == ones else value


def _asf_size(f: BinaryIO) -> int:
    """The header and the object of the frames that follows it; an index may come after."""
    (header,) = struct.unpack("<Q", f.read(8))
    f.seek(header + 16)
    (frames,) = struct.unpack("<Q", f.read(8))
    return header + frames


def _flv_size(f: BinaryIO, file_size: int) -> int:
    """Up to the end of the last tag."""
    f.seek(5)
    (place,) = struct.unpack(">I", f.read(4))
    place += 4
    while place + 4 <= file_size:
        f.seek(place)
        kind, *size = f.read(4)
        if kind not in _FLV_TAGS:
            return 0
        place += 11 + int.from_bytes(bytes(size), "big") + 4  # the last 4 repeat the size
    return place


def _program_stream_size(f: BinaryIO, file_size: int) -> int:
    """Up to the end of the last packet."""
    begin = max(0, file_size - _MPEG_TAIL)
    f.seek(begin)
    tail = f.read()
    place = tail.rfind(_MPEG_PACK)
    if place < 0:
        return 0
    is_mpeg2 = tail[place + 4 : place + 5] >= b"\x40"
    place += 14 if is_mpeg2 else 12
    if is_mpeg2 and place <= len(tail):
        place += tail[place - 1] & 7  # stuffing
    while place + 6 <= len(tail) and tail[place : place + 4] != _MPEG_END:
        code, size = struct.unpack_from(">IH", tail, place)
        if not 0x1BB <= code <= 0x1FF or not size:
            return 0
        place += 6 + size
    return begin + place


def _transport_stream_size(f: BinaryIO, file_size: int) -> int:
    """Up to the end of the last packet, where the packets begin with the file."""
    for size, sync in _TS_PACKETS:
        whole = file_size // size
        places = (0, 1, 2, whole - 1, whole)
        if whole > 2 and all(_byte(f, place * size + sync) in (_SYNC, b"") for place in places):
            return -(-file_size // size) * size
    return 0


def _byte(f: BinaryIO, place: int) -> bytes:
    f.seek(place)
    return f.read(1)
