"""Finding image files: by the extensions that Pillow reads here, and by content."""

from __future__ import annotations

import glob
import os
import struct
import zlib

from PIL import Image, features

from ..errors import InputError, printable
from ..files import check_regular_file, is_remote
from ..logs import get_logger

logger = get_logger(__name__)

# Pictures that Pillow decodes itself, without a program such as Ghostscript. MPO are JPEGs of some
# cameras; the last is pillow-heif's.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "GIF", "PPM", "TGA"),
    "HEIF",
)
_FEATURES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
_HEIF_EXTENSIONS = (".heic", ".heif", ".hif")
# What Pillow raises for a file that is not an image, is cut off, or claims to be enormous.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError, struct.error),
    *(zlib.error, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError),
)


def _readable() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Formats and extensions of what this build of Pillow reads."""
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    Image.init()
    formats = tuple(
        name
        for name in _FORMATS
        if name in Image.OPEN and (name not in _FEATURES or features.check(_FEATURES[name]))
    )
    found = sorted(e for e, name in Image.registered_extensions().items() if name in formats)
    return formats, tuple(found)


READ_FORMATS, IMAGE_EXTENSIONS = _readable()


def has_extension(name: str, *extensions: str) -> bool:
    """Whether a file is named so, in any case; hidden files, such as macOS's "._x.png", never are.

    Args:
        name: without its folder.
        extensions: such as ".png"; none = those of images.
    """
    extension = os.path.splitext(name)[1].lower()
    return name[0] != "." and extension in (extensions or IMAGE_EXTENSIONS)


def list_images(source: str | os.PathLike, name: str = "") -> list[str]:
    """The image files that `source` names: a file, a folder (not its subfolders) or a glob.

    The log says which files of a folder are left out because they are not read; hidden ones are
    left out in silence.

    Args:
        source: as the user gave it.
        name: of the parameter by which it was given, for the message.

    Raises:
        InputError: there are none, or it is a URL, a pipe or a device.
    """
    source = os.fspath(source)
    given = f"`{name}` " if name else ""
    left_out = ""
    if is_remote(source):
        raise InputError(f"{given}{source}: streams and URLs are not read; save it as a file")
    if os.path.isdir(source):
        names = [name for name in sorted(os.listdir(source)) if name[0] != "."]
        # A link to itself is none either, and is told when it is read.
        names = [name for name in names if not os.path.isdir(os.path.join(source, name))]
        found = [os.path.join(source, name) for name in names if has_extension(name)]
        left_out = _describe_left_out([name for name in names if not has_extension(name)])
        if left_out and found:
            logger.warning("%s: %s", printable(source), left_out % len(names))
    elif os.path.lexists(source):
        try:
            check_regular_file(source)
        except InputError as e:
            raise InputError(f"{given}{e}") from e
        found = [source]
    else:
        try:
            found = glob.glob(source, recursive=True)
        except RecursionError as e:
            raise InputError(
                f"{given}{source}: folders there are nested too deep; name a folder"
            ) from e
        found = sorted(path for path in found if not os.path.isdir(path))
    if not found:
        why = f"; {left_out % len(names)}" if left_out else ""
        raise InputError(f"{given}{source}: no image there (a file, a folder or a glob){why}")
    return found


def _describe_left_out(names: list[str], most: int = 3) -> str:
    """What is said of files that are not read, with a place for the number of all files."""
    if not names:
        return ""
    names = sorted(names, key=lambda name: not name.lower().endswith(_HEIF_EXTENSIONS))
    listed = ", ".join(
        printable(name, newlines=True).replace("%", "%%") + why_unread(name)
        for name in names[:most]
    )
    more = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return f"{len(names)} of %d files are not images that can be read: {listed}{more}"


def why_unread(name: str) -> str:
    """What must be installed to read a file of this name; "" = nothing."""
    return " (needs pillow-heif)" if name.lower().endswith(_HEIF_EXTENSIONS) else ""


def looks_like_image(path: str | os.PathLike) -> bool:
    """Whether a file's extension or its content is an image's; a file is opened for the latter."""
    path = os.fspath(path)
    if path.lower().endswith((*IMAGE_EXTENSIONS, *_HEIF_EXTENSIONS)):
        return True
    try:
        check_regular_file(path)
        with open(path, "rb") as f, Image.open(f, formats=READ_FORMATS):
            return True
    except Image.DecompressionBombError:
        return True
    except UNREADABLE:
        return False
