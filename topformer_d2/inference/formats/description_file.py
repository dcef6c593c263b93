"""The description of a model whose files have no place for it: a .json beside them.

It has an exported file's description with its sentences, and for each file of the model its size
and SHA-256. So damage to a file is found, and a file that is another model's. It does not say who
wrote the files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import InputError
from ...files import parse_json, read_bytes
from ..checksum import CHECKSUM_KEY, PLACEHOLDER, check_seal, seal
from ..explanation import metadata_json
from ..export_info import METADATA_KEY, ExportInfo
from ..fields import Fields, integer, text
from .base import check_file

EXTENSION = ".json"
_FILES = "files"
_MOST_BYTES = 1 << 26  # of the description
_MOST_MODEL_BYTES = 1 << 31


def write_description(info: ExportInfo, path: Path, beside: Sequence[str] = ()) -> None:
    """Write the .json beside a model's files, which are there.

    Args:
        info: of the model.
        path: of its first file.
        beside: extensions of its other files.
    """
    content = {
        METADATA_KEY: json.loads(metadata_json(info)),
        _FILES: {
            extension: _stamp(path.with_suffix(extension).read_bytes())
            for extension in (path.suffix, *beside)
        },
        CHECKSUM_KEY: PLACEHOLDER,
    }
    target = path.with_suffix(EXTENSION)
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    seal(target)


def read_description(
    path: str | Path, beside: Sequence[str] = ()
) -> tuple[ExportInfo, dict[str, bytes]]:
    """The description of a model and the content of its files, each of them checked.

    Args:
        path: of its first file.
        beside: extensions of its other files.

    Returns:
        the description, and the content of the files by extension, in the order given.

    Raises:
        InputError: a file is missing, damaged or of another model; the message names it.
    """
    path = Path(path)
    check_file(path)
    files = {path.suffix.lower(): path}
    files |= {extension: path.with_suffix(extension) for extension in beside}
    names = [file.name for file in files.values()]
    copy = f"copy {_list([*names, path.with_suffix(EXTENSION).name])} again, or export them again"
    info, stamps = _read_json(path.with_suffix(EXTENSION), list(files), copy)
    contents = {}
    for extension, file in files.items():
        if not file.exists():
            raise InputError(f"{path} has no {file.name} beside it: {copy}")
        contents[extension] = read_bytes(str(file), most=_MOST_MODEL_BYTES)
        if _stamp(contents[extension]) != stamps[extension]:
            raise InputError(
                f"{file} was damaged, or is not the file that {path.with_suffix(EXTENSION).name} "
                f"describes (its size or SHA-256 is another one): {copy}"
            )
    return info, contents


def move_described(partial: Path, target: Path) -> None:
    """Move a file that a .json describes, which goes first, to its place.

    Args:
        partial: the file, with its .json beside it.
        target: of the same name, on the same disk.
    """
    os.replace(partial.with_suffix(EXTENSION), target.with_suffix(EXTENSION))
    os.replace(partial, target)


def check_takes_place(path: Path, name: str = "path") -> None:
    """Refuse to write over a .json that no export of this kind of file wrote.

    Args:
        path: of the first file of the model that is to be written.
        name: of the parameter by which the user gave it, for the message.

    Raises:
        InputError: it describes a model of another format, or is something else.
    """
    file = path.with_suffix(EXTENSION)
    if not file.exists():
        return
    try:
        content = parse_json(read_bytes(str(file), most=_MOST_BYTES).decode(), "its text")
        extension = next(iter(content[_FILES]))
    except (InputError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        extension = None
    if extension != path.suffix:
        of = "no model's description" if extension is None else f"of a {extension} file"
        raise InputError(
            f"`{name}` {path}: {file.name} beside it, which would be written over, is {of}; give "
            "another name"
        )


def _read_json(
    file: Path, extensions: list[str], copy: str
) -> tuple[ExportInfo, dict[str, dict[str, int | str]]]:
    """The description, and size and SHA-256 of each file by extension."""
    if not file.exists():
        raise InputError(f"{file} is missing, which describes the model: {copy}")
    content = read_bytes(str(file), most=_MOST_BYTES)
    try:
        values = Fields(parse_json(content.decode(), "its text"))
        described = values.take(METADATA_KEY, lambda value: value)
        stamps = values.object(_FILES)
        values.take(CHECKSUM_KEY, text)
        values.end()
        known = {}
        for extension in stamps.keys()[:10]:
            found = stamps.object(extension)
            size, digest = found.take("size", integer(0, 1 << 62)), found.take("sha256", text)
            known[extension] = {"size": size, "sha256": digest}
    except ValueError as e:
        raise InputError(
            f"{file} does not describe a model of `topformer export`: {e}; {copy}"
        ) from e
    if not check_seal(content, str(file)):
        raise InputError(f"{file} has lost its checksum: {copy}")
    if list(known) != extensions:
        raise InputError(
            f"{file} describes files {_list(list(known))} and not {_list(extensions)}: {copy}"
        )
    return ExportInfo.from_json(json.dumps(described), str(file)), known


def _stamp(content: bytes) -> Mapping[str, int | str]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _list(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"
