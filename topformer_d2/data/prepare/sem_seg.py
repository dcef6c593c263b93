"""Datasets that come as folders of images and of label PNGs: CamVid and ADE20K."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..categories import load_categories
from .common import Pair, Report, Source, match_stems, prepare_pairs


@dataclass(frozen=True)
class Layout:
    """Where the official archive has a dataset, and where it goes below the datasets' root.

    Attributes:
        categories: name of the category file.
        splits: (name, image folder and label folder in the archive, image folder and label folder
            below `root`, expected pairs).
        root: folder below DETECTRON2_DATASETS.
        ignored_ids: official ids that are no class by design.
        refuse: (part of a file name, why) that tells another archive of a similar name.
    """

    categories: str
    root: str
    splits: tuple[tuple[str, str, str, str, str, int], ...]
    ignored_ids: tuple[int, ...]
    refuse: tuple[str, str] | None = None


def _camvid_split(split: str, count: int):
    return (
        split,
        split,
        f"{split}annot",
        f"images/{split}",
        f"annotations_detectron2/{split}",
        count,
    )


def _ade20k_split(split: str, folder: str, count: int):
    images, labels = f"images/{folder}", f"annotations/{folder}"
    return split, images, labels, images, f"annotations_detectron2/{folder}", count


LAYOUTS = {
    "camvid": Layout(
        categories="camvid",
        root="camvid",
        splits=(_camvid_split("train", 367), _camvid_split("val", 101), _camvid_split("test", 233)),
        ignored_ids=(11,),
    ),
    "ade20k": Layout(
        categories="ade20k",
        root="ADEChallengeData2016",
        splits=(
            _ade20k_split("train", "training", 20210),
            _ade20k_split("val", "validation", 2000),
        ),
        ignored_ids=(0,),
        refuse=("_seg.png", "this is the full ADE20K; the recipe uses ADEChallengeData2016.zip"),
    ),
}


def prepare_sem_seg(dataset: str, source: str, root: str) -> dict[str, Report]:
    """Bring an official archive into the layout of datasets/README.md.

    A second call does only what is missing, and a run killed at any moment can be repeated.

    Args:
        dataset: a key of LAYOUTS.
        source: the folder, .zip or .tar that the official site hands out.
        root: DETECTRON2_DATASETS.

    Returns:
        A report for each split that the source has.

    Raises:
        InputError: the source is not there, or is not this dataset.
    """
    layout = LAYOUTS[dataset]
    categories = load_categories(layout.categories)
    files = Source(source)
    if layout.refuse and any(layout.refuse[0] in name for name in files.names):
        raise InputError(f"{source}: {layout.refuse[1]}")
    target = Path(root) / layout.root
    reports = {}
    for split, image_dir, label_dir, image_out, label_out, _ in layout.splits:
        images, labels = files.folder(image_dir), files.folder(label_dir)
        if not images and not labels:
            continue
        problems: list[str] = []
        pairs = [
            Pair(
                images[stem],
                labels[stem],
                target / image_out / Path(images[stem]).name,
                target / label_out / f"{stem}.png",
            )
            for stem in match_stems(images, labels, problems)
        ]
        known = (*categories.source_ids, *layout.ignored_ids)
        report = prepare_pairs(files, pairs, categories.lookup_table(), known, f"{dataset} {split}")
        report.problems = problems + report.problems
        reports[split] = report
    if not reports:
        wanted = ", ".join(f"{s[1]}/ with {s[2]}/" for s in layout.splits)
        raise InputError(f"{source} is not {dataset}: found none of the folders {wanted}")
    return reports


def expected_pairs(dataset: str) -> dict[str, int]:
    """The recipe's number of pairs of each split."""
    return {split[0]: split[-1] for split in LAYOUTS[dataset].splits}
