"""What readers of formats with shapes share: listing files, names of images, telling problems."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ...errors import InputError, cut
from ...files import check_regular_file, is_remote, naming_json_errors, read_bytes
from ..image_files import has_extension
from .contract import LabelledImage, Problem
from .parallel import parse_some

MALFORMED = "malformed annotation"
NOT_USED = "annotation not used"
DUPLICATE = "duplicate annotation"
# Bytes of a file of one image; LabelMe's has the image itself in it.
MAX_FILE_BYTES = 128 << 20
# Bytes of a file of a whole dataset. COCO's largest official one has 470 MB.
MAX_DATASET_BYTES = 4 << 30
# Entries of a folder that a detection looks at.
_LISTED = 20_000
# Bytes of the head of a file, by which its kind is told.
_HEAD = 1 << 16


class Faults:
    """What is wrong with one file, told as one Problem of a kind."""

    _SHOWN = 3

    def __init__(self, file: str):
        self._file = file
        self._found: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, kind: str, message: object) -> None:
        """Note something that is wrong, and the fix; the message need not name the file."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if len(found := self._found.setdefault(kind, [])) < self._SHOWN:
            found.append(cut(str(message), 600))

    def problems(self) -> list[Problem]:
        """One for each kind, with the first messages and the number of the others."""
        told = []
        for kind, found in self._found.items():
            more = self._counts[kind] - len(found)
            rest = f"; and {more} more of this kind" if more else ""
            told.append(Problem(kind, self._file, f"{self._file}: {'; '.join(found)}{rest}"))
        return told


class ParsedFile(NamedTuple):
    """What a file of one image says.

    Attributes:
        labels: of its image.
        candidates: names that the image may have, the likeliest first.
        problems: of the file.
    """

    labels: LabelledImage
    candidates: tuple[str, ...]
    problems: list[Problem]


class ImageNames:
    """Names in the folder of the images, which tell the right one of several that labels give."""

    def __init__(self, folder: str):
        """
        Args:
            folder: of the images; nothing is known of one that cannot be listed.
        """
        self._folder = folder
        try:
            self.names = {name for name in os.listdir(folder) if has_extension(name)}
        except (OSError, ValueError):
            self.names = set()
        self._stems = {os.path.splitext(name)[0] for name in self.names}

    def pick(self, candidates: Sequence[str]) -> str:
        """The first that is an image of the folder, or else has its stem, or else the first."""
        if len(candidates) == 1:
            return candidates[0]
        for name in candidates:
            if os.path.basename(name) in self.names or self._is_below(name):
                return name
        for name in candidates:
            if os.path.splitext(os.path.basename(name))[0] in self._stems:
                return name
        return candidates[0]

    def _is_below(self, name: str) -> bool:
        try:
            return "/" in name and os.path.isfile(os.path.join(self._folder, name))
        except ValueError:  # a zero byte
            return False


def read_images(
    parse: Callable[[str], ParsedFile], files: Sequence[str], images: str
) -> tuple[list[LabelledImage], list[Problem]]:
    """The labels of files of one image each, and what is wrong with them.

    Args:
        parse: from a file to what it says, as parse_files takes it.
        files: to be read.
        images: the folder of the images, which tells the names that they have.

    Raises:
        InputError: none of the files can be used.
    """
    parsed, problems = parse_some(parse, files)
    names, placed = ImageNames(images), []
    for each in parsed:
        placed.append(each.labels._replace(image=names.pick(each.candidates)))
        problems += each.problems
    return placed, problems


def used_names(images: Iterable[LabelledImage]) -> list[str]:
    """The labels of all shapes, sorted."""
    return sorted({shape.label for image in images for shape in image.shapes})


def files_of(folder: str, extension: str, what: str) -> list[str]:
    """Paths of a folder's files with an extension, sorted; hidden ones are left out.

    Raises:
        InputError: there are none, or it cannot be listed.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as e:
        raise InputError(f"{folder} cannot be listed: {e.strerror or e}") from e
    found = [os.path.join(folder, name) for name in names if has_extension(name, extension)]
    if not found:
        below = [n for n in names if any(first_files(os.path.join(folder, n), extension, 1))]
        hint = f"; its folders {below[:5]} have some: name one of them" if below else ""
        raise InputError(f"{folder} has no {extension} file, which {what}{hint}")
    return found


def first_files(folder: str, extension: str, most: int = 3) -> list[str]:
    """Up to `most` files of a folder with an extension, in no order; [] where there are none."""
    try:
        with os.scandir(folder) as entries:
            named = (e.path for e in islice(entries, _LISTED) if has_extension(e.name, extension))
            return list(islice(named, most))
    except (OSError, ValueError):
        return []


def one_file(path: str, extension: str) -> str | None:
    """`path` itself where it is a file with this extension, or the only one of the folder."""
    if os.path.isdir(path):
        found = first_files(path, extension, 2)
        return found[0] if len(found) == 1 else None
    return path if has_extension(os.path.basename(path) or ".", extension) else None


def head_of(path: str, most: int = _HEAD) -> bytes:
    """The first bytes of a regular file; b"" where it cannot be read."""
    try:
        check_regular_file(path)
        with open(path, "rb") as f:
            return f.read(most)
    except (OSError, InputError):
        return b""


def has_texts(path: str, *texts: str) -> bool:
    """Whether a file has each of these texts somewhere, without reading it into memory."""
    try:
        check_regular_file(path)
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(text.encode()) >= 0 for text in texts)
    except (OSError, ValueError, InputError):
        return False


def small_json(path: str, most: int = MAX_FILE_BYTES) -> Any:
    """The values of a JSON file, for a detection; None where it is not one."""
    try:
        return load_json(path, most)
    except InputError:
        return None


def load_json(path: str, most: int = MAX_FILE_BYTES) -> Any:
    """The values of a JSON file, which may have NaN, as some tools write.

    Raises:
        InputError: it cannot be read, is larger than `most` bytes, or is not JSON in UTF-8.
    """
    content = read_bytes(path, most=most)
    with naming_json_errors(path):
        return json.loads(content.decode("utf-8-sig"))


def is_folder(path: str) -> bool:
    """Whether it is a folder of this machine."""
    return not is_remote(path) and os.path.isdir(path)
