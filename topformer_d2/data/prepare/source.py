"""What the official sites hand out, read by file name."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import ExifTags, Image

from ...errors import InputError
from ..images import IMAGE_EXTENSIONS, UNREADABLE

# What reading a file of a damaged archive raises; the last is a compression that Python lacks.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


class Source:
    """The files of folders, .zip and .tar archives and single .json files, by name.

    A folder's own name begins the names of its files, so that train2017/ is found as that whether
    it is named itself or the folder around it.

    Nothing is unpacked to disk. What macOS adds to archives is left out, and so is every folder
    whose name ends with _detectron2: prepared labels, which are no official ones.
    """

    def __init__(self, paths: Sequence[str]):
        """Raises InputError where one of `paths` is none of these."""
        self._paths = [str(path) for path in paths]
        self._read: dict[str, Callable[[str], bytes]] = {}
        for path in self._paths:
            names, read = _open(path)
            self._read |= {name: read for name in names if _is_official(name)}
        self.names = sorted(self._read)

    def __str__(self) -> str:
        return " with ".join(self._paths)

    def read(self, name: str) -> bytes:
        """The content of one file; safe to call from several threads."""
        return self._read[name](name)

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
            image = _decoded(content)
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
            json.loads(content) if name.endswith(".json") else _decoded(content)
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


def _decoded(content: bytes) -> Image.Image:
    """An image decoded in full, which is where a truncated download is found."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def _is_official(name: str) -> bool:
    path = PurePosixPath(name)
    folders = path.parent.parts
    return path.name[0] != "." and not any(
        f == "__MACOSX" or f.endswith("_detectron2") for f in folders
    )


def _open(path: str) -> tuple[Iterable[str], Callable[[str], bytes]]:
    """The names of the files that `path` holds, and what reads one of them."""
    if os.path.isdir(path):
        folder = Path(os.path.abspath(path))  # "." has a name then, and a link keeps its own
        names = [Path(file).relative_to(folder.parent).as_posix() for file in _files_below(folder)]
        return names, lambda name: (folder.parent / name).read_bytes()
    if not os.path.isfile(path):
        raise InputError(f"--source {path} does not exist")
    if path.endswith(".json"):
        return [os.path.basename(path)], lambda _: Path(path).read_bytes()
    if zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        names = [i.filename for i in archive.infolist() if not i.is_dir()]
        return names, _one_at_a_time(archive.read)
    if not tarfile.is_tarfile(path):
        raise InputError(f"--source {path} is no folder and no whole .zip or .tar archive")
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115 (open as long as the source is)
    except tarfile.ReadError:
        # Each jump back in a compressed stream reads it from its start.
        raise InputError(f"--source {path} is a compressed tar: unpack it first") from None
    try:
        members = {m.name: m for m in tar.getmembers() if m.isfile()}
    except tarfile.TarError as e:
        raise InputError(f"--source {path} is cut off or damaged: {e}") from e
    return members, _one_at_a_time(lambda name: tar.extractfile(members[name]).read())


def _files_below(folder: str | Path, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths of files, through links too but for those to a folder that they stand in."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files_below(entry.path, above | {real})
            else:
                yield entry.path


def _one_at_a_time(read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """`read` for several threads: an archive has one file handle."""
    lock = threading.Lock()

    def locked(name: str) -> bytes:
        with lock:
            return read(name)

    return locked
