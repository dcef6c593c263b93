"""A reader of an ONNX file's metadata that needs no ONNX library."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import InputError

# Where messages lie within ONNX's messages, by the numbers of their fields (onnx.proto).
_WITHIN = {
    "model": {7: "graph", 14: "property", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MOST_LEVELS = 40


def read_metadata(content: bytes, path: str) -> dict[str, str]:
    """The metadata_props of an ONNX file that has all of its weights inside.

    Args:
        content: of the file.
        path: of the file, for the message.

    Raises:
        InputError: it is cut off, is not an ONNX file, or takes weights from other files: those
            may be any that this process can read.
    """
    metadata: dict[str, str] = {}
    try:
        if not any(number == 7 for number, _ in _fields(memoryview(content))):
            raise ValueError("it has no graph")
        _walk(memoryview(content), "model", metadata, 0)
    except (ValueError, IndexError) as e:
        raise InputError(
            f"{path} is not a whole ONNX file ({e}): copy it again, or export it again"
        ) from e
    except _ExternalData as e:
        raise InputError(
            f"{path} takes weights from another file, which `topformer export` never writes: it "
            "is not opened"
        ) from e
    return metadata


class _ExternalData(Exception):
    pass


def _walk(message: memoryview, kind: str, metadata: dict[str, str], level: int) -> None:
    if level > _MOST_LEVELS:
        raise ValueError("its graphs are nested too deep")
    if kind == "property":
        pair = {number: _text(value) for number, value in _fields(message)}
        metadata[pair.get(1, "")] = pair.get(2, "")
        return
    within = _WITHIN.get(kind, {})
    for number, value in _fields(message):
        if kind == "tensor":
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                raise _ExternalData
        elif number in within:
            if isinstance(value, int):
                raise ValueError("a message is a number")
            _walk(value, within[number], metadata, level + 1)


def _text(value: memoryview | int) -> str:
    if isinstance(value, int):
        raise ValueError("a text is a number")
    return bytes(value).decode()


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a protobuf message: number, and its bytes or integer."""
    i = 0
    value: int | memoryview
    while i < len(message):
        key, i = _varint(message, i)
        kind = key & 7
        if kind == 0:
            value, i = _varint(message, i)
        elif kind in (1, 5):
            start, i = i, i + (8 if kind == 1 else 4)
            value = message[start:i]
        elif kind == 2:
            length, i = _varint(message, i)
            start, i = i, i + length
            value = message[start:i]
        else:
            raise ValueError(f"byte {i} is not of this format")
        if i > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, value


def _varint(message: memoryview, i: int) -> tuple[int, int]:
    """The integer that begins at byte i, and the place behind it."""
    value = shift = 0
    while True:
        if i >= len(message):
            raise ValueError("it is cut off")
        byte = message[i]
        i += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, i
        shift += 7
        if shift > 63:
            raise ValueError(f"byte {i} is not of this format")
