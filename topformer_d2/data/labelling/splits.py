"""Which images of a folder a dataset has."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence

from ...errors import InputError
from ...files import read_text
from .entry import Entry

_LARGEST_LIST = 1 << 28  # bytes


def choose(files: Sequence[str], entry: Entry, where: str) -> list[str]:
    """Those of the images that LIST names, of which SHARE takes its part; sorted.

    SHARE orders the images, or their groups, at random by the seed, and takes those from the first
    share of them to the second. So two entries with [0, 0.8] and [0.8, 1] have no image, and no
    group, in common, and together all. Groups are not split: where they are large, a part has
    somewhat more or less than its share.

    Args:
        files: paths of all images below their folder, each once.
        entry: LIST, SHARE, GROUP and SPLIT_SEED are used.
        where: of the entry, for messages.

    Raises:
        InputError: LIST names an image that is not among them, or no image is left.
    """
    chosen = sorted(files)
    if entry.list_file:
        chosen = _listed(chosen, entry.list_file)
    if entry.share != (0.0, 1.0) or entry.group:
        chosen = _shared(chosen, entry, where)
    if not chosen:
        raise InputError(
            f"{where}: LIST {entry.list_file or '(none)'} and SHARE {list(entry.share)} leave no "
            f"image of {len(files)}"
        )
    return chosen


def _listed(files: list[str], list_file: str) -> list[str]:
    """Those whose path, the end of it, or its stem is the first word of a line."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for file in files:
        for name in {file, posixpath.splitext(file)[0]}:
            parts = name.split("/")
            for i in range(len(parts)):
                by_name["/".join(parts[i:])].append(file)
    found: dict[str, None] = {}
    text = read_text(list_file, most=_LARGEST_LIST)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        # VOC's lists have a second column; names may have spaces.
        readings = (line.strip(), line.split()[0])
        names = [end for name in readings for end in _ends(name.replace("\\", "/"))]
        matched = next((by_name[name] for name in names if name in by_name), None)
        if matched is None:
            raise InputError(
                f"{list_file}, line {number}: no labelled image is called {line.strip()!r}; it "
                f"takes names such as {files[0]!r}"
            )
        found |= dict.fromkeys(matched)
    return sorted(found)


def _ends(name: str) -> list[str]:
    """What a path may stand for, the longest first; each with and without its extension."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    ends = ["/".join(parts[i:]) for i in range(len(parts))]
    return [each for end in ends for each in (end, posixpath.splitext(end)[0])]


def _shared(files: list[str], entry: Entry, where: str) -> list[str]:
    groups: dict[str, list[str]] = defaultdict(list)
    pattern = re.compile(entry.group) if entry.group else None
    for file in files:
        key = file
        if pattern is not None:
            match = pattern.search(file)
            if match is None:
                raise InputError(
                    f"{where}.GROUP {entry.group!r} finds nothing in {file!r}: write a pattern "
                    "that fits the paths of all images"
                )
            key = match[1] if match.lastindex else match[0]
        groups[key].append(file)

    def drawn(key: str) -> str:
        return hashlib.sha256(f"{entry.split_seed} {key}".encode("utf-8", "replace")).hexdigest()

    first, last = (round(share * len(files)) for share in entry.share)
    chosen: list[str] = []
    place = 0
    for key in sorted(groups, key=drawn):
        # By its first image, so that every group is in one part.
        if first <= place < last:
            chosen += groups[key]
        place += len(groups[key])
    return sorted(chosen)
