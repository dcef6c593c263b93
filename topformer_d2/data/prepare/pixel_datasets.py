"""Official archives of segmentation datasets to the layouts of datasets/README.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...files import locked_output, write_beside
from ..categories import load_categories
from ..image_files import UNREADABLE
from ..images import write_image
from .cityscapes import CITYSCAPES
from .coco2017 import COCO_2017
from .coco_stuff10k import COCO_STUFF_10K
from .dataset import Dataset, Pair, Split, in_threads
from .folders import ADE20K, CAMVID, COCO_STUFF_164K
from .opening import DAMAGED
from .pascal_context import PASCAL_CONTEXT
from .source import Source

DATASETS = {
    "ade20k": ADE20K,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "coco2017": COCO_2017,
    "coco_stuff10k": COCO_STUFF_10K,
    "coco_stuff164k": COCO_STUFF_164K,
    "pascal_context": PASCAL_CONTEXT,
}


@dataclass
class Report:
    """What the preparation of a split did.

    Attributes:
        split: its name.
        expected: the recipe's number of pairs.
        problems_file: where the problems go when they are many.
        is_here: whether the source has anything of it.
        written, kept: pairs written now, and found from an earlier run.
        problems: one line for each pair that could not be prepared.
        notes: what the dataset has to tell.
        unknown_ids: {official id that is not a class: pixels} of what was written now; ignored.
        modes: {Pillow mode: images} of what was written now.
        without_class: labels written now in which every pixel is ignored.
    """

    split: str
    expected: int
    problems_file: Path
    is_here: bool = True
    written: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown_ids: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    without_class: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.written + self.kept

    def summary(self) -> str:
        """Text for the terminal, without the problems."""
        if not self.is_here:
            return f"{self.split}: not in this source"
        ready = f"{self.total} pairs ready ({self.written} written, {self.kept} there before)"
        lines = [f"{self.split}: {ready}"]
        if self.total != self.expected:
            lines.append(f"WARNING: the recipe has {self.expected} pairs, {self.total} are here")
        if self.unknown_ids:
            ids = dict(sorted(self.unknown_ids.items()))
            lines.append(f"ids that are not classes, now ignored (id: pixels): {ids}")
        if self.modes.keys() - {"RGB"}:
            lines.append(f"images by Pillow's mode, read as RGB in training: {dict(self.modes)}")
        if self.without_class:
            first = self.without_class[0]
            lines.append(f"labels without any class: {len(self.without_class)}, {first} among them")
        return "\n".join(lines + self.notes)


def prepare_sem_seg(
    dataset: str, sources: Sequence[str], root: str, *, max_gib: float | None = None
) -> dict[str, Report]:
    """Bring official archives into the layout of datasets/README.md.

    A second call does only what is missing, and a run killed at any moment can be repeated.

    Args:
        dataset: a key of DATASETS.
        sources: the folders, .zip, .tar and .json files that the official site hands out.
        root: DETECTRON2_DATASETS.
        max_gib: GiB that each file of a source may have; None = the limits of Source.

    Returns:
        A report for each split of the dataset.

    Raises:
        InputError: a source is not there, they are not this dataset, or another process prepares
            the same folder.
    """
    what, files = DATASETS[dataset], Source(sources, max_gib=max_gib)
    folder = Path(root) / what.root
    with locked_output(folder, f"preparing {dataset}"):
        found = _find(what, files, folder, dataset)
        reports = {}
        for name, expected in what.expected.items():
            report = reports[name] = Report(
                name, expected, folder / f"problems_{dataset}_{name}.txt", is_here=name in found
            )
            if report.is_here:
                _prepare_split(what, files, found[name], report, f"{dataset} {name}")
    return reports


def _find(what: Dataset, files: Source, folder: Path, dataset: str) -> dict[str, Split]:
    found = what.find(files, folder)
    if not any(split.pairs for split in found.values()):
        for part, verdict in what.look_alikes:
            if any(part in name for name in files.names):
                raise InputError(f"{files}: {verdict}")
    if not found:
        raise InputError(f"{files} is not {dataset}: found none of {what.wanted}")
    return found


def _prepare_split(
    dataset: Dataset, files: Source, split: Split, report: Report, title: str
) -> None:
    """Write what is missing of a split, on all cores, and count it in the report."""
    report.problems, report.notes = split.problems, split.notes
    all_categories = [load_categories(name) for name in dataset.categories]
    tables = [categories.lookup_table() for categories in all_categories]
    known_ids = {*dataset.ignored_ids, *(i for c in all_categories for i in c.source_ids)}
    for name, out in split.copies:
        if not out.is_file():
            try:
                content = files.read_whole(name)
            except ValueError as e:
                report.problems.append(str(e))
            else:
                write_beside(out, content)

    # Threads, for decoding and compressing images leaves Python to the others; what does not (a
    # .mat, the masks of an image) takes a millisecond or two.
    def prepare(pair: Pair) -> _Written | str | None:
        return _prepare_pair(dataset, files, pair, tables)

    with in_threads(prepare, split.pairs, title, "pair") as outcomes:
        for pair, outcome in zip(split.pairs, outcomes, strict=True):
            if outcome is None:
                report.kept += 1
            elif isinstance(outcome, str):
                report.problems.append(outcome)
            else:
                report.written += 1
                report.modes[outcome.mode] += 1
                ids = np.flatnonzero(outcome.histogram)
                report.unknown_ids.update(
                    {int(i): int(outcome.histogram[i]) for i in ids if i not in known_ids}
                )
                if tables and all((table[ids] == 255).all() for table in tables):
                    report.without_class.append(pair.label_outs[0].name)


@dataclass
class _Written:
    """What there is to tell of a pair: its image's Pillow mode, and pixels by official id."""

    mode: str
    histogram: np.ndarray


def _prepare_pair(
    dataset: Dataset, files: Source, pair: Pair, tables: list[np.ndarray]
) -> _Written | str | None:
    """None where all is there, and a problem as text where the pair cannot be used."""
    if pair.is_prepared():
        return None
    try:
        content, image = files.read_image(pair.image, pair.image_out)
    except ValueError as e:
        return str(e)
    try:
        label = dataset.decode(files, pair.label)
        copies = [(out, files.read_whole(name)) for name, out in pair.copies]
    except InputError:  # not one file is wrong, but the source
        raise
    except (*UNREADABLE, *DAMAGED) as e:
        return f"label of {pair.image}: {e}"
    is_deep = any(len(table) > 256 for table in tables)
    if label.ndim != 2 or label.dtype != (np.uint16 if is_deep else np.uint8):
        return f"label of {pair.image}: {label.dtype} of shape {label.shape} is not a map of ids"
    if image.size != label.shape[::-1]:
        return f"{pair.image} is {image.size}, its label {label.shape[::-1]}"
    if not pair.image_out.is_file():
        write_beside(pair.image_out, content)
    for out, copy in copies:
        write_beside(out, copy)
    for out, table in zip(pair.label_outs, tables, strict=True):
        write_image(str(out), table[label])
    return _Written(image.mode, np.bincount(label.reshape(-1)))
