"""What images there are, on this machine or in a remote store."""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from ...data.image_files import has_extension, list_images
from ...errors import InputError, import_optional, printable
from ...files import (
    check_regular_file,
    fsspec_store,
    is_remote,
    read_bytes,
    told,
)
from ...logs import get_logger
from ..prediction_files import split_outputs

logger = get_logger(__name__)


def list_inputs(source: str | os.PathLike, name: str = "") -> list[str]:
    """The paths of images, sorted, each once; those of this machine are absolute.

    Args:
        source: a folder, an image or a glob, as list_images takes them; a .txt file with a path a
            line; a .parquet file, or a folder of them that is named so, with a column "path", or
            with one column of texts; a URI that pyarrow.fs or fsspec knows, such as
            s3://bucket/photos, of a folder, an image, a .txt or a .parquet. Paths in a .txt or
            .parquet are from the working folder on, or URIs.
        name: of the parameter by which it was given, for the message.

    Raises:
        InputError: there are none, a list cannot be read, or a library for it is missing.
    """
    source = os.fspath(source)
    given = f"`{name}` " if name else ""
    path = _split(source, given).path if is_remote(source) else source
    extension = os.path.splitext(path.rstrip("/"))[1].lower()
    if extension == ".txt" and not os.path.isdir(source):
        found = _read_lines(source, given)
    elif extension == ".parquet":
        found = _read_column(source, given)
    elif is_remote(source):
        found = _list_remote(source, given)
    else:
        found = _without_outputs(source, list_images(source, name))
    stores = {_split(path, given)[:2]: path for path in found if is_remote(path)}
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


def _split(uri: str, given: str) -> SplitResult:
    """urlsplit, whose message names the parameter and the URI."""
    try:
        uri.encode()
        parts = urlsplit(uri)
    except UnicodeEncodeError as e:  # of a line of a list
        raise InputError(
            f"{given}{uri} is no URI, as it is not UTF-8: name a file of this machine by its path"
        ) from e
    except ValueError as e:  # as of a bracket without its other one
        raise InputError(f"{given}{uri} is no URI: {e}") from e
    if "\0" in unquote(parts.path):
        raise InputError(f"{given}{uri} is no URI of a file: its path has a zero byte (%00)")
    return parts


def _without_outputs(source: str, paths: Sequence[str]) -> list[str]:
    found, earlier = split_outputs(paths)
    if earlier:
        logger.warning(
            "%s: %d images that an earlier run seems to have written are left out, such as %s",
            *(printable(source), len(earlier), printable(earlier[0])),
        )
    return found


def _read_lines(path: str, given: str) -> list[str]:
    """The lines of a list, as the bytes of names that need not be UTF-8."""
    try:
        if is_remote(path):
            store, found = open_store(path)
            with store.open_input_stream(found) as file:
                content = file.read()
        else:
            content = read_bytes(path)
    except InputError as e:
        raise InputError(f"{given}{e}") from e
    except Exception as e:  # the libraries of stores have errors of their own
        raise InputError(f"{given}{path} cannot be read: {told(e)}") from e
    if b"\0" in content:
        raise InputError(f"{given}{path} has zero bytes, as text in UTF-16 has: save it as UTF-8")
    text = content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    # A name may have what else ends a line for str.splitlines, or is a space for str.strip.
    return [line for line in (each.strip(" \t\r") for each in text.split("\n")) if line]


def _read_column(path: str, given: str) -> list[str]:
    """The texts of a column of paths of a Parquet file, or of a folder of them."""
    dataset = import_optional("pyarrow.dataset", "a .parquet of paths", "topformer_d2[ray]")
    try:
        store, place = open_store(path) if is_remote(path) else (None, path)
        if store is None and not os.path.isdir(path):
            check_regular_file(path)
        table = dataset.dataset(place, filesystem=store, format="parquet")
        texts = [field.name for field in table.schema if _is_text(field.type)]
        column = "path" if "path" in texts else texts[0] if len(texts) == 1 else None
        if column is not None:
            values = table.to_table(columns=[column]).column(0).to_pylist()
    except InputError as e:
        raise InputError(f"{given}{e}") from e
    except MemoryError:
        raise
    except Exception as e:  # the libraries of stores have errors of their own
        raise InputError(f"{given}{path} cannot be read as Parquet: {told(e)}") from e
    if column is None:
        raise InputError(
            f'{given}{path} has no column "path" of texts, and not exactly one such column '
            f"(columns: {', '.join(table.schema.names)}): rename the column of paths"
        )
    if empty := [str(row) for row, value in enumerate(values) if not value]:
        raise InputError(f"{given}{path} has rows without a path, such as row {empty[0]}")
    return values


def _is_text(kind: Any) -> bool:
    types = import_optional("pyarrow", "a .parquet of paths", "topformer_d2[ray]").types
    kind = kind.value_type if types.is_dictionary(kind) else kind  # as of categories
    return any(
        test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view)
    )


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
        names = sorted(each.base_name for each in infos if each.type == fs.FileType.File)
    except InputError:
        raise
    except UnicodeDecodeError as e:  # of a file of this machine
        raise InputError(
            f"{given}{uri} has a file whose name is not UTF-8: name the folder by its path, and "
            "not by a URI"
        ) from e
    except Exception as e:
        raise InputError(f"{given}{uri} cannot be listed: {told(e)}") from e
    kept = [name for name in names if has_extension(name)]
    if not kept:
        raise InputError(f"{given}{uri}: no image there, of {len(names)} files")
    folder = uri.rstrip("/")
    if not isinstance(store, fs.PyFileSystem):  # pyarrow's own take escapes in a URI for characters
        kept = [quote(name, safe="") for name in kept]
    return _without_outputs(uri, [f"{folder}/{name}" for name in kept])
