"""Reading XML of untrusted files."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from ...errors import InputError
from ...files import read_bytes
from .shape_files import head_of

# What comes before the first element: the declaration, comments, a document type without entities.
_ROOT = re.compile(r"<(?![?!])([^\s/>]+)")


def root_tag(path: str) -> str:
    """The name of a file's first element; "" where none is in its head."""
    text = head_of(path).replace(b"\0", b"").decode("utf-8", "replace")
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    if not text.lstrip("\ufeff\ufffd \t\r\n").startswith("<"):
        return ""
    found = _ROOT.search(text)
    return found[1] if found else ""


def read_xml(path: str, most: int) -> bytes:
    """The bytes of an XML file that declares no entities, which may grow without a limit.

    Args:
        path: of the file.
        most: bytes; a larger file is refused.

    Raises:
        InputError: it cannot be read, is too large or declares entities.
    """
    content = read_bytes(path, most=most)
    # UTF-16 has a zero byte beside each of these characters.
    plain = content.replace(b"\0", b"") if b"\0" in content[:64] else content
    if b"<!ENTITY" in plain:
        raise InputError(
            f"{path} declares entities, which labels do not need: remove <!ENTITY ...>"
        )
    return content


def parse_xml(path: str, most: int) -> ET.Element:
    """The root of a file's elements; arguments and errors as read_xml, or it is not XML."""
    content = read_xml(path, most)
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError) as e:
        raise InputError(f"{path} is not XML: {e}") from e


def elements(path: str, most: int) -> Iterator[ET.Element]:
    """The children of a file's root when each is whole.

    Each is emptied after use, so that a large file takes little memory.

    Raises:
        InputError: as parse_xml.
    """
    content = read_xml(path, most)
    depth = 0
    root = ET.Element("")
    try:
        for event, element in ET.iterparse(io.BytesIO(content), events=("start", "end")):
            if event == "start":
                root = root if depth else element
                depth += 1
                continue
            depth -= 1
            if depth == 1:
                yield element
                root.clear()
    except (ET.ParseError, ValueError, LookupError) as e:
        raise InputError(f"{path} is not XML: {e}") from e
