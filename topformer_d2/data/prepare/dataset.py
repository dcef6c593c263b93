"""What tells one segmentation dataset from another when it is prepared."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..image_files import has_extension
from ..images import LOSSY_FORMATS, decode_image, png_bit_depth
from .source import Source


@dataclass(frozen=True)
class Pair:
    """One image with its labels: what to read, and the files to write.

    Attributes:
        image: name in the source; it may be missing there where `image_out` stands already.
        image_out: where the image goes, unchanged.
        label: what the dataset's `decode` takes, usually a name in the source.
        label_outs: where the label goes, once for each of the dataset's tables of categories.
        copies: (name in the source, file to write) of what goes along unchanged.
    """

    image: str
    image_out: Path
    label: Any
    label_outs: tuple[Path, ...]
    copies: tuple[tuple[str, Path], ...] = ()

    def is_prepared(self) -> bool:
        """Whether all its files are there; each was renamed into place when it was whole."""
        files = (self.image_out, *self.label_outs, *(out for _, out in self.copies))
        return all(file.is_file() for file in files)


@dataclass
class Split:
    """One split as a source has it.

    Attributes:
        pairs: images with labels.
        problems: one line for each file without its partner.
        notes: what is worth telling and no problem.
        copies: (name in the source, file to write) of further files.
    """

    pairs: list[Pair]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    copies: list[tuple[str, Path]] = field(default_factory=list)


def decode_png(files: Source, name: str) -> np.ndarray:
    """(H, W) ids of a label PNG, as they are stored; a palette PNG gives its indices.

    Raises:
        one of image_files.UNREADABLE: it is damaged, or its format does not keep the ids.
    """
    content = files.read(name)
    image = decode_image(content)
    if image.format in LOSSY_FORMATS:
        raise ValueError(
            f"{name} is a {image.format} file, whatever its name: that changes pixels near the "
            "borders to other classes"
        )
    if image.mode == "L" and (bits := png_bit_depth(io.BytesIO(content))) not in (None, 8):
        raise ValueError(f"{name} is a grey PNG of {bits} bits, which is read as other ids")
    return np.asarray(image)


@dataclass(frozen=True)
class Dataset:
    """A dataset as its official site hands it out.

    Attributes:
        root: its folder below DETECTRON2_DATASETS.
        expected: {split: the recipe's number of pairs}.
        find: (source, its folder) -> {split: what the source has of it}, without splits that it
            has nothing of.
        wanted: what `find` looks for, in words.
        categories: names of the category files through which a label is written, one for each of
            a pair's label_outs; none where there are boxes and no labels of pixels.
        ignored_ids: official ids that are not classes, by design.
        decode: (source, Pair.label) -> (H, W) uint8, or uint16 where an official id is above 255.
        look_alikes: (part of a file name, what it tells) of other archives of a similar name.
    """

    root: str
    expected: dict[str, int]
    find: Callable[[Source, Path], dict[str, Split]]
    wanted: str
    categories: tuple[str, ...]
    ignored_ids: tuple[int, ...]
    decode: Callable[[Source, Any], np.ndarray] = decode_png
    look_alikes: tuple[tuple[str, str], ...] = ()


@contextmanager
def in_threads(function: Callable, items: Sequence, title: str, unit: str) -> Iterator:
    """The results of `function` for each of `items`, in order, with a bar of progress.

    An error or Ctrl-C within the block ends what is being done and begins nothing more.
    """
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield tqdm(pool.map(function, items), total=len(items), desc=title, unit=unit)
    finally:
        pool.shutdown(cancel_futures=True)


def images_in(folder: Path) -> dict[str, str]:
    """{stem: path} of a folder's images; none where it is missing."""
    if not folder.is_dir():
        return {}
    return {p.stem: str(p) for p in folder.iterdir() if has_extension(p.name)}


def match(
    images: dict[str, str], labels: dict[str, Any], in_place: dict[str, str]
) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Images and labels of the same key, which is a stem or a part of it.

    Args:
        images: {key: name in the source}.
        labels: {key: anything}.
        in_place: {key: path} of images that stand where they belong: the source need not have them.

    Returns:
        {key: (image, label)} sorted by key, and one line for each without a partner, or a single
        one where there are no images or no labels at all.
    """
    images = {key: in_place[key] for key in labels.keys() & in_place.keys()} | images
    if labels and not images:
        return {}, [f"{len(labels)} labels and no image: is an archive missing?"]
    if images and not labels:
        return {}, [f"{len(images)} images and no label: is an archive missing?"]
    alone = [f"{images[key]} has no label" for key in sorted(images.keys() - labels.keys())]
    alone += [f"the label of {key} has no image" for key in sorted(labels.keys() - images.keys())]
    both = sorted(images.keys() & labels.keys())
    return {key: (images[key], labels[key]) for key in both}, alone


def pair_up(
    images: dict[str, str], labels: dict[str, Any], images_out: Path, labels_out: Sequence[Path]
) -> Split:
    """The split of all labels with an image of the same stem, which also names what is written.

    Args:
        images: {stem: name in the source}.
        labels: {stem: what `decode` takes}.
        images_out: folder of the images; those that stand there the source need not have.
        labels_out: folders of the labels, one for each table of categories.
    """
    matched, problems = match(images, labels, images_in(images_out))
    pairs = [
        Pair(
            image,
            images_out / Path(image).name,
            label,
            tuple(folder / f"{stem}.png" for folder in labels_out),
        )
        for stem, (image, label) in matched.items()
    ]
    return Split(pairs, problems)
