"""Shared by the preparation of all segmentation datasets: reading archives, writing pairs."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import ExifTags, Image
from tqdm.auto import tqdm

from ...errors import InputError
from ..files import UNREADABLE, write_beside, write_image

# What reading a file of a damaged archive raises.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)


class Source:
    """The files of a folder, a .zip or a .tar archive, by name; nothing is unpacked to disk."""

    def __init__(self, path: str):
        """Raises InputError where `path` is none of these."""
        # Archives are read through one file handle.
        self._lock = nullcontext() if os.path.isdir(path) else threading.Lock()
        if os.path.isdir(path):
            root = Path(path)
            files = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
            self._read = lambda name: files[name].read_bytes()
            names: Iterable[str] = files
        elif not os.path.isfile(path):
            raise InputError(f"--source {path} does not exist")
        elif zipfile.is_zipfile(path):
            archive = zipfile.ZipFile(path)
            names = [i.filename for i in archive.infolist() if not i.is_dir()]
            self._read = archive.read
        elif tarfile.is_tarfile(path):
            try:
                tar = tarfile.open(path, "r:")  # noqa: SIM115 (open as long as the source is)
            except tarfile.ReadError:
                # Each jump back in a compressed stream reads it from its start.
                raise InputError(f"--source {path} is a compressed tar: unpack it first") from None
            try:
                names = [m.name for m in tar.getmembers() if m.isfile()]
            except tarfile.TarError as e:
                raise InputError(f"--source {path} is cut off or damaged: {e}") from e
            self._read = lambda name: tar.extractfile(name).read()
        else:
            raise InputError(f"--source {path} is no folder and no whole .zip or .tar archive")
        self.names = sorted(
            n for n in names if "__MACOSX" not in n and PurePosixPath(n).name[0] != "."
        )

    def read(self, name: str) -> bytes:
        """The content of one file; safe to call from several threads."""
        with self._lock:
            return self._read(name)

    def folder(self, ending: str) -> dict[str, str]:
        """{stem: name} of the files directly in the folder whose path ends with `ending`.

        Archives are repacked one folder deeper at times, so the path before `ending` is free.
        """
        ending = f"/{ending.strip('/')}"
        paths = [PurePosixPath(n) for n in self.names]
        return {p.stem: str(p) for p in paths if f"/{p.parent}".endswith(ending)}


@dataclass
class Pair:
    """One image with its labels: names in the source, files to write."""

    image: str
    label: str
    image_out: Path
    label_out: Path


@dataclass
class Report:
    """What a preparation did.

    Attributes:
        written, kept: pairs written now, and found from an earlier run.
        problems: one line for each pair that could not be prepared.
        unknown_ids: {official id that is no class: pixels}; those are ignored.
    """

    written: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    unknown_ids: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.written + self.kept

    def summary(self, expected: int | None = None) -> str:
        """Text for the terminal; `expected` is the recipe's number of pairs."""
        lines = [f"{self.total} pairs ready ({self.written} written, {self.kept} there before)"]
        if expected is not None and self.total != expected:
            lines.append(f"WARNING: the recipe has {expected} pairs, {self.total} are here")
        if self.unknown_ids:
            lines.append(f"ids that are no class, now ignored (id: pixels): {self.unknown_ids}")
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join(lines)


def prepare_pairs(
    source: Source, pairs: list[Pair], table: np.ndarray, known_ids: Iterable[int], title: str
) -> Report:
    """Copy images and rewrite labels through `table`, on all cores, skipping what is there.

    Args:
        source: where images and labels are read.
        pairs: what to read and write.
        table: (256,) uint8, official id to training id.
        known_ids: official ids that are expected; others are counted in the report.
        title: of the progress bar.
    """
    expected_ids = np.zeros(256, bool)
    expected_ids[list(known_ids)] = True

    def prepare(pair: Pair) -> tuple[str, np.ndarray | None]:
        if pair.image_out.is_file() and pair.label_out.is_file():
            return "kept", None
        try:
            content = source.read(pair.image)
            image = Image.open(io.BytesIO(content))
            image.load()  # decoded in full: a truncated download is found here
            label = np.asarray(Image.open(io.BytesIO(source.read(pair.label))))
        except (*UNREADABLE, *DAMAGED) as e:
            return f"{pair.image}: {e}", None
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return f"{pair.image} is turned by its EXIF orientation, its label is not", None
        if label.ndim != 2 or label.dtype != np.uint8:
            return f"{pair.label}: {label.dtype} of shape {label.shape} is no map of ids", None
        if image.size != label.shape[::-1]:
            return f"{pair.image} is {image.size}, its label {label.shape[::-1]}", None
        if not pair.image_out.is_file():
            write_beside(pair.image_out, content)
        write_image(str(pair.label_out), table[label])
        return "written", np.bincount(label.reshape(-1), minlength=256)

    report = Report()
    counts = np.zeros(256, np.int64)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcome, histogram in tqdm(
            pool.map(prepare, pairs), total=len(pairs), desc=title, unit="pair"
        ):
            if outcome == "written":
                report.written += 1
                counts += histogram
            elif outcome == "kept":
                report.kept += 1
            else:
                report.problems.append(outcome)
    report.unknown_ids = {
        int(i): int(counts[i]) for i in np.flatnonzero((counts > 0) & ~expected_ids)
    }
    return report


def match_stems(images: dict[str, str], labels: dict[str, str], report: list[str]) -> list[str]:
    """Stems that both have, sorted; the others are added to `report` as problems."""
    report += [f"{images[s]} has no label" for s in sorted(images.keys() - labels.keys())]
    report += [f"{labels[s]} has no image" for s in sorted(labels.keys() - images.keys())]
    return sorted(images.keys() & labels.keys())
