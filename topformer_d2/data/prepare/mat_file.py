"""Variables of a MATLAB 5 .mat file, read here because SciPy's reader crashes at damaged ones."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
# Types of an element's values, by MATLAB's numbers.
_TYPES = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_NUMERIC, _COMPLEX = range(6, 16), 0x800  # classes of a matrix, and a flag
# Of a file, uncompressed. The label of the largest image, of fewer than 2^19 pixels, has 4 MB as
# doubles.
_MAX_BYTES = 1 << 27


@dataclass(frozen=True)
class Variable:
    """
    Attributes:
        shape: as MATLAB has it, two sizes or more.
        values: of this shape; None where it is not an array of real numbers.
    """

    shape: tuple[int, ...]
    values: np.ndarray | None


def read_mat(content: bytes) -> dict[str, Variable]:
    """{name: variable} of a file of MATLAB 5 to 7.2.

    Raises:
        ValueError: it is of another kind, cut off or damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER_BYTES])
    if order is None:
        raise ValueError("it is not a .mat file of MATLAB 5 to 7.2")
    variables, room = {}, _MAX_BYTES
    for kind, data in _elements(content[_HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            data = _decompress(data, room)
            room -= len(data)
            kind, data = next(_elements(data, order), (0, b""))
        if kind == _MATRIX:
            name, variable = _read_matrix(data, order)
            variables[name] = variable
    return variables


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each element that `data` consists of."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("an element is cut off")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        begin = place + 8
        if kind >> 16:  # a small one, whose bytes stand in the place of the size
            kind, size, begin = kind & 0xFFFF, kind >> 16, place + 4
            end = place + 8
        else:
            end = begin + size
        if begin + size > min(end, len(data)):
            raise ValueError(f"an element claims {size} bytes and has {len(data) - begin}")
        yield kind, data[begin : begin + size]
        # Each begins at a multiple of 8, but for what follows a compressed one.
        place = end if kind == _COMPRESSED else -(-end // 8) * 8


def _decompress(data: bytes, room: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, room + 1)
    except zlib.error as e:
        raise ValueError(f"a compressed variable is damaged: {e}") from e
    if len(content) > room:
        raise ValueError(f"its variables have more than {_MAX_BYTES} bytes")
    if not stream.eof:
        raise ValueError("a compressed variable is cut off")
    return content


def _read_matrix(data: bytes, order: str) -> tuple[str, Variable]:
    elements = _elements(data, order)
    try:
        kinds, sizes, (_, encoded) = next(elements), next(elements), next(elements)
    except StopIteration:
        raise ValueError("a variable has no flags, sizes or name") from None
    flags = _numbers(*kinds, order)
    shape = tuple(_numbers(*sizes, order).tolist())
    if not len(flags) or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"a variable has the flags {flags.tolist()} and the shape {shape}")
    name = encoded.decode("latin-1")
    if int(flags[0]) & 0xFF not in _NUMERIC or int(flags[0]) & _COMPLEX:
        return name, Variable(shape, None)
    values = _numbers(*next(elements, (0, b"")), order)
    if len(values) != math.prod(shape):
        raise ValueError(f"{name} has the shape {shape} and {len(values)} values")
    return name, Variable(shape, values.reshape(shape, order="F"))


def _numbers(kind: int, data: bytes, order: str) -> np.ndarray:
    if kind not in _TYPES or len(data) % np.dtype(_TYPES[kind]).itemsize:
        raise ValueError(
            f"an element of type {kind} and {len(data)} bytes is not an array of numbers"
        )
    return np.frombuffer(data, order + _TYPES[kind])
