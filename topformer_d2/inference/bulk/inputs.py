"""What images there are, on this machine or in a remote store, and the bytes of remote ones."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ...data.image_files import has_extension, list_images
from ...errors import InputError, import_optional, printable
from ...files import (
    ask_store,
    check_regular_file,
    fsspec_store,
    is_remote,
    read_text,
    told,
)
from ...logs import get_logger
from ..prediction_files import split_outputs

logger = get_logger(__name__)

# What a file may have in bytes for each pixel that is read, and for all that is not pixels.
_BYTES_PER_PIXEL, _SOME_BYTES = 16, 1 << 24
# Other files that are tried where one may not be read, and of each store the one read last.
_PROBES = 8
_read_last: dict[tuple[str, str], str] = {}


def list_inputs(source: str | os.PathLike, name: str = "") -> list[str]:
    """The paths of images, sorted, each once; those of this machine are absolute.

    Args:
        source: a folder, an image or a glob, as list_images takes them; a .txt file with a path a
            line; a .parquet file with a column "path", or with one column of texts; a URI that
            pyarrow.fs or fsspec knows, such as s3://bucket/photos, of a folder or an image. Paths
            in a .txt or .parquet are from the working folder on, or URIs.
        name: of the parameter by which it was given, for the message.

    Raises:
        InputError: there are none, a list cannot be read, or a library for it is missing.
    """
    source = os.fspath(source)
    given = f"`{name}` " if name else ""
    extension = "" if os.path.isdir(source) else os.path.splitext(source)[1].lower()
    if is_remote(source):
        found = _list_remote(source, given)
    elif extension == ".txt":
        found = [line for line in map(str.strip, read_text(source).splitlines()) if line]
    elif extension == ".parquet":
        found = _read_column(source, given)
    else:
        found = _without_outputs(source, list_images(source, name))
    stores = {urlsplit(path)[:2]: path for path in found if is_remote(path)}
    for path in stores.values():  # which have to be known and to be installed
        _open_named(path, given)
    counts = Counter(path if is_remote(path) else os.path.abspath(path) for path in found)
    if not counts:
        raise InputError(f"{given}{source}: no image is named there")
    if repeated := sum(count > 1 for count in counts.values()):
        logger.warning(
            "%s names %d images more than once; each is predicted once",
            *(printable(source), repeated),
        )
    return sorted(counts)


def _without_outputs(source: str, paths: Sequence[str]) -> list[str]:
    found, earlier = split_outputs(paths)
    if earlier:
        logger.warning(
            "%s: %d images that an earlier run seems to have written are left out, such as %s",
            *(printable(source), len(earlier), printable(earlier[0])),
        )
    return found


def _read_column(path: str, given: str) -> list[str]:
    """The texts of a Parquet file's column of paths."""
    check_regular_file(path)
    parquet = import_optional("pyarrow.parquet", "a .parquet of paths", "topformer_d2[ray]")
    arrow = import_optional("pyarrow", "a .parquet of paths", "topformer_d2[ray]")
    try:
        schema = parquet.read_schema(path)
        is_text = (arrow.types.is_string, arrow.types.is_large_string)
        texts = [field.name for field in schema if any(each(field.type) for each in is_text)]
        column = "path" if "path" in texts else texts[0] if len(texts) == 1 else None
        if column is None:
            raise InputError(
                f'{given}{path} has no column "path" of texts, and not exactly one such column '
                f"(columns: {', '.join(schema.names)}): rename the column of paths"
            )
        values = parquet.read_table(path, columns=[column]).column(0).to_pylist()
    except (arrow.ArrowException, OSError) as e:
        raise InputError(f"{given}{path} cannot be read as Parquet: {e}") from e
    if empty := [str(row) for row, value in enumerate(values) if not value]:
        raise InputError(f"{given}{path} has rows without a path, such as row {empty[0]}")
    return values


def open_store(uri: str) -> tuple[Any, str]:
    """The file system of a URI, as pyarrow.fs has it, and the path in it.

    A process opens each store once.

    Raises:
        InputError: neither pyarrow.fs nor fsspec knows the scheme, a library is missing, or it
            cannot open the store.
    """
    fs = import_optional("pyarrow.fs", f"{uri}", "topformer_d2[ray]")
    parts = urlsplit(uri)
    known = _open_root(urlunsplit((parts.scheme, parts.netloc, "/", parts.query, "")))
    if known is not None:
        store, root = known
        return store, f"{root.rstrip('/')}/{unquote(parts.path).lstrip('/')}"
    store, path = fsspec_store(uri)
    return fs.PyFileSystem(fs.FSSpecHandler(store)), path


@lru_cache(maxsize=16)
def _open_root(uri: str) -> tuple[Any, str] | None:
    """pyarrow's own file system of a store, and the path of its root; None = it has none."""
    arrow = import_optional("pyarrow", f"{uri}", "topformer_d2[ray]")
    fs = import_optional("pyarrow.fs", f"{uri}", "topformer_d2[ray]")
    try:
        return fs.FileSystem.from_uri(uri)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
        return None


def _open_named(uri: str, given: str) -> tuple[Any, str]:
    """open_store, whose message names the parameter."""
    try:
        return open_store(uri)
    except InputError as e:
        raise InputError(f"{given}{e}") from e
    except OSError as e:
        raise InputError(f"{given}{uri} cannot be opened: {e}") from e


def _list_remote(uri: str, given: str) -> list[str]:
    """The image that a URI names, or those of its folder (not of folders in it)."""
    fs = import_optional("pyarrow.fs", f"{uri}", "topformer_d2[ray]")
    try:
        store, path = _open_named(uri, given)
        info = store.get_file_info(path)
        if info.type == fs.FileType.File:
            return [uri]
        if info.type != fs.FileType.Directory:
            raise InputError(f"{given}{uri}: nothing is there")
        infos = store.get_file_info(fs.FileSelector(path))
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"{given}{uri} cannot be listed: {told(e)}") from e
    names = sorted(each.base_name for each in infos if each.type == fs.FileType.File)
    kept = [name for name in names if has_extension(name)]
    if not kept:
        raise InputError(f"{given}{uri}: no image there, of {len(names)} files")
    folder = uri.rstrip("/")
    if not isinstance(store, fs.PyFileSystem):  # pyarrow's own take escapes in a URI for characters
        kept = [quote(name, safe="") for name in kept]
    return _without_outputs(uri, [f"{folder}/{name}" for name in kept])


def read_remote(uri: str, max_pixels: int, others: Sequence[str] = ()) -> bytes:
    """The bytes of a remote file.

    A store that does not answer is tried again, so that its rest is no fault of the image. Where it
    does not let the file be read, others say whose fault that is: of this file, or of all.

    Args:
        uri: of the file.
        max_pixels: a file that is larger than so many pixels can need is refused.
        others: paths, some of which may be of the same store.

    Raises:
        InputError: there is no such file, it is too large, or the store does not let it be read and
            lets another one be.
        OSError: the store does not answer, cannot be opened here, or lets no file be read.
    """
    most = _SOME_BYTES + _BYTES_PER_PIXEL * max_pixels

    def read() -> bytes:
        try:
            store, path = open_store(uri)
        except InputError as e:  # which the next file would meet as well
            raise PermissionError(errno.EPERM, str(e), uri) from e
        with store.open_input_stream(path) as file:
            return file.read(most + 1)

    store_name = urlsplit(uri)[:2]
    try:
        content = ask_store(uri, read)
    except PermissionError as e:
        known = _read_last.get(store_name)
        same = [path for path in others if urlsplit(path)[:2] == store_name and path != uri]
        spread = same[:: -(-len(same) // _PROBES) or 1]
        if any(_lets_be_read(other) for other in [*([known] if known else []), *spread]):
            raise InputError(f"{uri} may not be read: {e.strerror}") from e
        raise
    _read_last[store_name] = uri
    if len(content) > most:
        raise InputError(f"{uri} is larger than {most} bytes, which is more than it can need")
    return content


def _lets_be_read(uri: str) -> bool:
    """Whether a store gives a part of a file now."""
    try:
        store, path = open_store(uri)
        with store.open_input_stream(path) as file:
            file.read(1)
    except MemoryError:
        raise
    except Exception:  # the libraries of stores have errors of their own
        return False
    return True
