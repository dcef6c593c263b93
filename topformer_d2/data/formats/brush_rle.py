"""The masks of Label Studio's brush.

Source: the description of rle-pack, https://github.com/thi-ng/umbrella.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InputError, shortened
from .regions import check_pixels


def brush_alpha(data: Any, width: int, height: int, what: str) -> np.ndarray:
    """The opacity of a brush's RLE: (height, width) uint8, of the red, green, blue and opacity.

    A stream of bits: how many values (32 bits), bits of a value - 1 (5), bits of each of 4 kinds of
    lengths - 1 (4 each). Then, until all values are there: 1 = a value that is repeated, 0 =
    values one by one (1 bit); the kind of the length (2); the length - 1; the value or values.

    Raises:
        InputError: it is not that, or is not of such an image.
    """
    check_pixels((width, height), what)
    if not isinstance(data, list) or not {*map(type, data)} <= {int}:
        raise InputError(f"{what}: its 'rle' is {shortened(data, 60)}; it takes a list of bytes")
    if not data or not (min(data) >= 0 and max(data) <= 255):
        raise InputError(f"{what}: its 'rle' is empty or has a number that is no byte")
    stream = _Bits(bytes(data), what)
    count, bits = stream.take(32), stream.take(5) + 1
    lengths = [stream.take(4) + 1 for _ in range(4)]
    if count != width * height * 4 or bits > 16:
        raise InputError(
            f"{what}: its 'rle' has {count} values of {bits} bits, and the image {width}x{height} "
            "pixels of 4 values: export it anew"
        )
    alpha = np.zeros(width * height, np.uint8)
    i = 0
    while i < count:
        repeated = stream.take(1)
        end = i + 1 + stream.take(lengths[stream.take(2)])
        if end > count:
            raise InputError(f"{what}: its 'rle' has more values than the image")
        # Every fourth value is an opacity.
        first, last = i // 4, end // 4
        if repeated:
            alpha[first:last] = min(stream.take(bits), 255)
        else:
            values = stream.take_many(end - i, bits)
            alpha[first:last] = np.minimum(values[4 * first + 3 - i :: 4], 255)
        i = end
    return alpha.reshape(height, width)


class _Bits:
    """Numbers from a stream of bits, the highest bit first."""

    def __init__(self, data: bytes, what: str):
        self._data, self._what, self._at = data, what, 0

    def take(self, bits: int) -> int:
        end = self._at + bits
        self._check(end)
        part = self._data[self._at // 8 : (end + 7) // 8]
        self._at = end
        return int.from_bytes(part, "big") >> (-end % 8) & ((1 << bits) - 1)

    def take_many(self, count: int, bits: int) -> np.ndarray:
        end = self._at + count * bits
        self._check(end)
        part = np.frombuffer(self._data[self._at // 8 : (end + 7) // 8], np.uint8)
        start = self._at % 8
        flat = np.unpackbits(part)[start : start + count * bits]
        self._at = end
        return flat.reshape(count, bits) @ (1 << np.arange(bits - 1, -1, -1))

    def _check(self, end: int) -> None:
        if end > len(self._data) * 8:
            raise InputError(f"{self._what}: its 'rle' is cut off: export it anew")
