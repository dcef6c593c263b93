"""What the official sites hand out, read by file name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from PIL import ExifTags, Image
from tqdm.auto import tqdm

from ...errors import InputError
from ...files import parse_json
from ..image_files import IMAGE_EXTENSIONS, UNREADABLE
from ..images import decode_image
from .opening import DAMAGED, open_source

# File systems take 255; a label's extension may be longer than its image's.
_MAX_NAME_BYTES = 250
_MAX_GIB = 1 << 20


class Source:
    """The files of folders, .zip and .tar archives and single .json files, by name.

    A folder's own name begins the names of its files, so that train2017/ is found as that whether
    it is named itself or the folder around it.

    Nothing is unpacked to disk. What macOS adds to archives is left out, and so is every folder
    whose name ends with _detectron2: prepared labels, which are not official ones.
    """

    def __init__(self, paths: Sequence[str], *, max_gib: float | None = None):
        """
        Args:
            paths: of these.
            max_gib: GiB that each file may have, where its limit is lower (opening.MAX_BYTES,
                MAX_FILE_BYTES); None = the limits.

        Raises:
            InputError: one of `paths` is none of these, or max_gib is not above 0.
        """
        if max_gib is not None and not 0 < max_gib < _MAX_GIB:
            raise InputError(f"max_gib is {max_gib}; it takes a number above 0, such as 4")
        least_limit = int((max_gib or 0) * 2**30)
        self._paths = [str(path) for path in paths]
        self._read: dict[str, Callable[[], bytes]] = {}
        for path in self._paths:
            opened = open_source(path, least_limit)
            unusable = [name for name in opened.read if not _is_usable(name)]
            for what, names in (
                ("not regular files (pipes, devices, links)", opened.left_out),
                ("files whose names cannot be written", unusable),
            ):
                if names:
                    tqdm.write(f"left out {len(names)} {what}, {names[0]!r} among them")
            self._read |= {
                name: read
                for name, read in opened.read.items()
                if _is_usable(name) and _is_official(name)
            }
        self.names = sorted(self._read)

    def __str__(self) -> str:
        return " with ".join(self._paths)

    def read(self, name: str) -> bytes:
        """The content of one file; safe to call from several threads.

        Raises:
            ValueError: it is damaged, or larger than such a file can be.
        """
        try:
            return self._read[name]()
        except (OSError, *DAMAGED) as e:
            raise ValueError(str(e) or type(e).__name__) from e

    def read_lines(self, name: str) -> list[str]:
        """The lines of a text file that the whole source depends on.

        Raises:
            InputError: it cannot be read or is not UTF-8.
        """
        try:
            return self.read(name).decode("utf-8-sig").splitlines()
        except ValueError as e:
            raise InputError(f"{name} cannot be read as UTF-8 text: {e}") from e

    def read_image(self, name: str, out: Path | None = None) -> tuple[bytes, Image.Image]:
        """The content of an image file and the decoded image.

        Args:
            name: of the file in this source.
            out: where it is going to stand. Where it does already, it is read from there.

        Raises:
            ValueError: it cannot be read to its end, or is turned by its EXIF orientation. The
                message begins with the file.
        """
        is_there = out is not None and out.is_file()
        name = str(out) if is_there else name
        try:
            content = out.read_bytes() if is_there else self.read(name)
            image = decode_image(content)
        except (*UNREADABLE, *DAMAGED) as e:
            raise ValueError(f"{name}: {e}") from e
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # as Detectron2 does: damaged EXIF data turns nothing
            orientation = 1
        if orientation in range(2, 9):
            raise ValueError(f"{name}: turned by its EXIF orientation, its annotation is not")
        return content, image

    def read_whole(self, name: str) -> bytes:
        """The content of a .json or of an image file, which has been decoded to its end.

        Raises:
            ValueError: it cannot be. The message begins with the file.
        """
        try:
            content = self.read(name)
            parse_json(content, name) if name.endswith(".json") else decode_image(content)
        except InputError as e:  # a damaged file is one of many here
            raise ValueError(str(e)) from e
        except (*UNREADABLE, *DAMAGED) as e:
            raise ValueError(f"{name}: {e}") from e
        return content

    def find(
        self, pattern: str, root: str | None = None, problems: list[str] | None = None
    ) -> dict[str, str]:
        """{key: name} of the files whose path ends with a regular expression; its group 1 is key.

        Args:
            pattern: of the path's end.
            root: what is before it, empty or ending with "/"; None = anything, for archives are
                repacked one folder deeper at times.
            problems: takes a line for each file whose key another has already.

        Raises:
            InputError: two files have the same key, and there is no list to say so.
        """
        path = re.compile(f"{'(?:.*/)?' if root is None else re.escape(root)}{pattern}")
        found: dict[str, str] = {}
        for name in self.names:
            match = path.fullmatch(name)
            if match and match[1] in found:
                shared = f"{name} and {found[match[1]]} share a stem"
                if problems is None:
                    raise InputError(
                        f"{self}: {shared}: name the folder or the archive that holds the one "
                        "wanted"
                    )
                problems.append(f"{shared}: the latter is used")
            elif match:
                found[match[1]] = name
        return found

    def folder(
        self,
        ending: str,
        *extensions: str,
        root: str | None = None,
        problems: list[str] | None = None,
    ) -> dict[str, str]:
        """{stem: name} of the files directly in the folder whose path ends with `ending`.

        Args:
            ending: such as "images/training".
            extensions: such as ".xml", in any case; none = those of images.
            root, problems: as find() has them.
        """
        endings = "|".join(map(re.escape, extensions or IMAGE_EXTENSIONS))
        return self.find(rf"{re.escape(ending)}/([^/]+)(?i:{endings})", root, problems)


def _is_usable(name: str) -> bool:
    """Whether a file can be written under this name, and the name into a JSON as UTF-8."""
    try:
        content = PurePosixPath(name).name.encode()
        name.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(content) <= _MAX_NAME_BYTES and "\0" not in name


def _is_official(name: str) -> bool:
    path = PurePosixPath(name)
    folders = path.parent.parts
    return path.name[0] != "." and not any(
        f == "__MACOSX" or f.endswith("_detectron2") for f in folders
    )
