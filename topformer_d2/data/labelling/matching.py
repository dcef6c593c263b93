"""Which image file each label belongs to, and how large that is."""

from __future__ import annotations

import os
import posixpath
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile

from detectron2.utils.file_io import PathManager
from PIL import ExifTags

from ...errors import InputError
from ...files import full_path, is_remote
from ..image_files import IMAGE_EXTENSIONS
from ..images import MAX_PIXELS, opened_image
from ..output_folders import is_output

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class ImageFolder:
    """The image files of a folder and its subfolders, found by what labels call them.

    What runs have written there (`is_output`) is left out.
    """

    def __init__(self, root: str, leave_out: Sequence[str] = ()):
        """
        Args:
            root: of the images.
            leave_out: files there that are labels.

        Raises:
            InputError: the folder is missing, or has no image.
        """
        if not PathManager.isdir(root):
            raise InputError(f"folder {full_path(root)} does not exist")
        left = {os.path.abspath(path) for path in leave_out}
        self.root = root
        # Paths from the root, with "/" between folders.
        self.files = sorted(
            path
            for path in _list_images(root)
            if not left or os.path.abspath(os.path.join(root, path)) not in left
        )
        if not self.files:
            raise InputError(f"folder {full_path(root)} has no image")
        # {the end of a path, with and without extension: the files that it may mean}
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for path in self.files:
            parts = path.split("/")
            for i in range(len(parts)):
                end = "/".join(parts[i:])
                self._by_end[end].append(path)
                self._by_end[posixpath.splitext(end)[0]].append(path)

    def find(self, name: str) -> str | None:
        """The file that labels call `name`; None where there is none.

        A name is a path, of which the end counts, with or without its extension, as it stands,
        with backslashes for "/", or as in a URL. Where several files fit, the longest end decides.

        Raises:
            InputError: several files fit as well.
        """
        for written in dict.fromkeys(_readings(name)):
            parts = [part for part in written.split("/") if part not in ("", ".", "..")]
            for i in range(len(parts)):
                end = "/".join(parts[i:])
                found = self._by_end.get(end) or self._by_end.get(posixpath.splitext(end)[0])
                if found and len(set(found)) == 1:
                    return found[0]
                if found:
                    several = sorted(set(found))[:3]
                    raise InputError(
                        f"{name!r} may be {' or '.join(several)} of {self.root}: write the folder "
                        "in the label's name of its image, or name the folder of these images "
                        "as IMAGES"
                    )
        return None


def shared_end(name: str, file: str) -> int:
    """How many folders and file names at the end of two paths are the same."""
    file_parts = posixpath.splitext(file)[0].split("/")[::-1]
    most = 0
    for written in _readings(name):
        whole = written.split("/")[::-1]
        for parts in (whole, [posixpath.splitext(whole[0])[0], *whole[1:]]):
            pairs = zip(parts, file_parts, strict=False)
            most = max(most, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return most


def _readings(name: str) -> Iterator[str]:
    """What a name may mean, the likeliest first."""
    yield name
    plain = name.replace("\\", "/")
    yield plain
    yield urllib.parse.unquote(plain)
    yield urllib.parse.unquote(plain).partition("?")[0]


def _list_images(root: str) -> Iterator[str]:
    if is_remote(root):
        for name in PathManager.ls(root):
            if name.lower().endswith(IMAGE_EXTENSIONS):
                yield name
        return
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(os.path.join(root, prefix)) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if entry.is_dir():
                    if not entry.is_symlink() and not is_output(entry.path):
                        folders.append(f"{prefix}{entry.name}/")
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_EXTENSIONS:
                    yield f"{prefix}{entry.name}"


def image_size(path: str) -> tuple[int, int]:
    """(width, height) of an image as read_image gives it, by the header of its file.

    Raises:
        InputError: it cannot be read, or is too large to be.
    """
    with opened_image(path, MAX_PIXELS) as (_, image):
        width, height = image.size
        # Reading the EXIF data of a PNG decodes it.
        if image.format != "PNG" and image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
            return height, width
        return width, height
