"""What stands in a PASCAL-VOC-style folder: one XML of boxes an image, and lists of images."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...errors import InputError
from ..image_files import IMAGE_EXTENSIONS
from .source import Source

_CLASS_LIST_LINE = re.compile(r"\s(-1|0|1)$")


@dataclass
class VocObject:
    name: str
    corners: tuple[float, float, float, float]  # xmin, ymin, xmax, ymax as the file has them
    difficult: bool

    def begins_at_zero(self) -> bool:
        """A negative coordinate is a box that reaches out, and says nothing of the origin."""
        return any(0 <= c < 1 for c in self.corners[:2])


def find_root(files: Source) -> str:
    """The path up to Annotations/, ending with "/" where it is not empty."""
    roots = {
        str(path.parent.parent)
        for path in map(PurePosixPath, files.names)
        if path.suffix == ".xml" and path.parent.name == "Annotations"
    }
    if not roots:
        raise InputError(f"{files} has no folder Annotations with .xml files: is it VOC's layout?")
    if len(roots) > 1:
        raise InputError(f"{files} holds {len(roots)} datasets, {sorted(roots)}: name one of them")
    root = roots.pop()
    return "" if root == "." else f"{root}/"


def read_splits(files: Source, root: str, problems: list[str]) -> dict[str, list[str]]:
    """{split: stems} of the lists in ImageSets/Main, each stem once.

    Args:
        root: as find_root returns it.
        problems: takes a line for each list that names an image twice.
    """
    splits = {}
    lists = files.folder("ImageSets/Main", ".txt", root=root, problems=problems)
    for split, name in lists.items():
        lines = [line.strip() for line in files.read_lines(name) if line.strip()]
        # <class>_<split>.txt says in a second column whether an image has the class.
        if lines and all(_CLASS_LIST_LINE.search(line) for line in lines):
            continue
        stems = [
            PurePosixPath(line).stem if line.lower().endswith(IMAGE_EXTENSIONS) else line
            for line in lines
        ]
        splits[split] = list(dict.fromkeys(stems))
        if len(splits[split]) < len(stems):
            problems.append(f"{name} lists {len(stems) - len(splits[split])} images more than once")
    return splits


def read_xml(content: bytes) -> tuple[list[VocObject], tuple[int, int] | None]:
    """The objects, and <size> as (width, height); None where it is missing or 0, as tools write."""
    if b"<!ENTITY" in content.replace(b"\0", b""):  # of UTF-16, too
        raise ValueError("it declares entities, which an XML of boxes does not need")
    root, objects = ET.fromstring(content), []
    width, height = (
        int(float(root.findtext(f"size/{key}", default="").strip() or 0))
        for key in ("width", "height")
    )
    for element in root.iter("object"):
        name, box = element.findtext("name"), element.find("bndbox")
        if not name or box is None:
            raise ValueError("an object without a name or a bndbox")
        x0, y0, x1, y1 = corners = tuple(
            float(box.findtext(key, default="nan")) for key in ("xmin", "ymin", "xmax", "ymax")
        )
        if not all(map(math.isfinite, corners)):
            raise ValueError(
                f"a bndbox of {name.strip()!r} lacks a coordinate or has no finite one"
            )
        difficult = element.findtext("difficult", default="0").strip() == "1"
        objects.append(VocObject(name.strip(), (x0, y0, x1, y1), difficult))
    return objects, (width, height) if min(width, height) > 0 else None
