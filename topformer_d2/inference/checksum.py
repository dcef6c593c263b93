"""The SHA-256 inside an exported file, by which damage is found."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import InputError

# Under it the checksum stands in ONNX's metadata_props, OpenVINO's rt_info, and a .json.
CHECKSUM_KEY = "topformer_d2_sha256"
# As long as a checksum; it stands there while the checksum is computed.
PLACEHOLDER = "0" * 64
# As ONNX (the tag and length of the value), OpenVINO's XML and JSON have it.
_PATTERN = re.compile(CHECKSUM_KEY.encode() + rb'(?:\x12\x40| value="|": ")([0-9a-f]{64})')


def seal(path: Path, weights: Path | None = None) -> None:
    """Put the checksum where PLACEHOLDER stands in a file.

    Args:
        path: of the file.
        weights: OpenVINO's second file, which the checksum includes.
    """
    content = path.read_bytes()
    (place,) = _PATTERN.finditer(content)
    digest = _digest(content, place, None if weights is None else weights.read_bytes())
    path.write_bytes(content[: place.start(1)] + digest + content[place.end(1) :])


def check_seal(content: bytes, path: str, weights: bytes | None = None) -> bool:
    """False where a file has no checksum.

    A checksum finds damage, and a file beside which another one's weights lie. It does not say who
    wrote the file.

    Args:
        content: of the file.
        path: of the file, for the message.
        weights: the content of OpenVINO's second file, which has the same name and .bin.

    Raises:
        InputError: it has another content than it was written with.
    """
    places = list(_PATTERN.finditer(content))
    if not places:
        return False
    if len(places) > 1 or _digest(content, places[0], weights) != places[0][1]:
        files, copy = path, "copy it again"
        if weights is not None:
            files = f"{path} or {Path(path).with_suffix('.bin').name}"
            copy = "copy both files again"
        raise InputError(
            f"{files} was damaged or changed after it was written (its SHA-256 is another one): "
            f"{copy}, or export it again"
        )
    return True


def _digest(content: bytes, place: re.Match, weights: bytes | None) -> bytes:
    found = hashlib.sha256(memoryview(content)[: place.start(1)])
    found.update(PLACEHOLDER.encode())
    found.update(memoryview(content)[place.end(1) :])
    if weights is not None:
        found.update(weights)
    return found.hexdigest().encode()
