"""Predictions as pictures: of image files, and of a dataset beside its truth."""

from __future__ import annotations

import json
import mimetypes
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog
from tqdm.auto import tqdm

from ..data.images import MAX_PIXELS, read_image, write_image
from ..data.registered import load_records, missing_paths, spread_evenly
from ..errors import InputError, describe_os_error, printable, trouble_of_one
from ..files import check_output, write_beside
from ..inference import Predictor, Scene
from ..inference.model_info import ModelInfo
from ..logs import get_logger
from .painter import Painter
from .sheet import make_sheet

logger = get_logger(__name__)

# Pixels of an image's shorter side from which the names of its boxes leave most of it free.
_READABLE = 240


def output_names(paths: Sequence[str | os.PathLike]) -> list[str]:
    """A name for each file's outputs: its path below the folder that all share, no extension.

    Files that differ in the extension alone keep it, and so do those whose name without it is
    another's with it. What is then still equal, or differs in its case alone, as some file systems
    do not tell apart, gets "-2", "-3" and so on. No two names are equal in that sense.
    """
    if not paths:
        return []
    full = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in full])
    full = [os.path.relpath(path, root) for path in full]
    names = [os.path.splitext(path)[0] for path in full]
    while True:
        counts = Counter(map(_folded, names))
        kept = [f if counts[_folded(n)] > 1 else n for f, n in zip(full, names, strict=True)]
        if kept == names:
            break
        names = kept
    taken = {_folded(name) for name in names}
    seen: set[str] = set()
    for i, name in enumerate(names):
        number = 1
        while _folded(names[i]) in seen or (number > 1 and _folded(names[i]) in taken):
            number += 1
            names[i] = f"{name}-{number}"
        seen.add(_folded(names[i]))
    return names


def _folded(name: str) -> str:
    """What is equal for two names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def predict_files(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    min_score: float = 0.5,
    json_file: str | os.PathLike | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[str]:
    """Write `<name>_overlay.jpg` and, where pixels are labelled, `<name>_label.png` below `output`.

    Label maps hold class indices, 8 bit up to 256 classes and 16 bit above; output_names names
    them.

    Args:
        predictor: of any backend.
        paths: image files.
        output: folder, made where it is missing.
        min_score: boxes below it are not drawn.
        json_file: where all boxes are written in COCO's results format, one JSON object a line.
            Images of the dataset that the model's classes come from have their image_id; others
            are numbered by their names, as COCO's are, where all names are numbers, and named
            otherwise. It has the boxes of the images that were done also where the run ends
            early, as by Ctrl-C or a full disk; an earlier file stays where none was.
        max_pixels: of an image; larger ones are not read.

    Returns:
        One line for each image that could not be read, predicted or written whole.

    Raises:
        InputError: an output would overwrite an input, `output` is named as a picture or video is,
            json_file cannot be written, or there are no boxes or no category ids to write to it.
        OSError: one that the next image would meet as well, such as a full disk.
    """
    info = predictor.info
    painter = Painter(info)
    files = [os.fspath(path) for path in paths]
    output = os.fspath(output)
    json_file = os.fspath(json_file) if json_file else None
    names = output_names(files)
    endings = ["label.png", "overlay.jpg"] if "sem_seg" in info.tasks else ["overlay.jpg"]
    pictures = [os.path.join(output, f"{name}_{ending}") for ending in endings for name in names]
    _refuse_overwriting("an input", files, pictures)
    if json_file:
        _check_json_target(json_file, info)
        _refuse_overwriting("an input", files, [json_file])
        _refuse_overwriting("a picture", pictures, [json_file])
    _make_folder(output)
    if json_file:
        check_output(json_file, "json_file")
    image_ids: Sequence[int | str] = names
    if json_file:
        image_ids = _image_ids(files, names, info.objects.dataset)
    problems: list[str] = []
    lines: list[str] = []
    with _written_however_it_ends(json_file, lines):
        for path, name, image_id in zip(tqdm(files, unit="image"), names, image_ids, strict=True):
            with _noting(path, problems):
                image = read_image(path, max_pixels=max_pixels)
                scene = predictor(image)
                if json_file:
                    lines += _json_lines(scene, image_id, info.objects.ids)
                stem = os.path.join(output, name)
                _write_pictures(painter, image, scene.above(min_score), stem)
    return problems


@contextmanager
def _written_however_it_ends(path: str | None, lines: list[str]) -> Iterator[None]:
    """Write a text file of `lines` at the block's end, and where an exception ends it."""
    try:
        yield
    except BaseException:
        if path and lines:
            try:
                write_beside(path, "".join(lines).encode())
            except OSError as e:
                reason = printable(describe_os_error(e))
                logger.error("the boxes of the images that were done are not written: %s", reason)
        raise
    if path:
        write_beside(path, "".join(lines).encode())


@contextmanager
def _noting(path: str, problems: list[str]) -> Iterator[None]:
    """Append what is wrong with one image, and go on."""
    try:
        yield
    except Exception as e:
        problem = trouble_of_one(e, path)
        if problem is None:
            raise
        problems.append(problem)


def _write_pictures(painter: Painter, image: np.ndarray, scene: Scene, stem: str) -> None:
    """The label map, where there is one, and the overlay of an image (BGR)."""
    if scene.label is not None:
        write_image(f"{stem}_label.png", scene.label)
    picture = painter.draw(np.ascontiguousarray(image[:, :, ::-1]), scene)
    write_image(f"{stem}_overlay.jpg", painter.add_legend(picture, scene)[:, :, ::-1])


def _make_folder(output: str) -> None:
    """Make the folder; InputError where its name is a picture's or a video's."""
    kind = (mimetypes.guess_type(output)[0] or "").partition("/")[0]
    if kind in ("image", "video") and not os.path.isdir(output):
        raise InputError(f"{output} has the name of one {kind}: images are written to a folder")
    Path(output).mkdir(parents=True, exist_ok=True)


def _check_json_target(json_file: str, info: ModelInfo) -> None:
    """Raise InputError, before the work and not after, where boxes cannot be written."""
    if "instances" not in info.tasks:
        raise InputError(f"this model finds no boxes to write to {json_file}")
    if info.objects.ids is None:
        raise InputError(
            f"the category ids to write to {json_file} are unknown: DATASETS.TEST must name a "
            "registered dataset with the model's classes, for an exported file when it is exported"
        )


def _json_lines(scene: Scene, image_id: int | str, category_ids: Sequence[int]) -> list[str]:
    """The boxes of one image in COCO's results format, one JSON object a line."""
    scores = [] if scene.scores is None else scene.scores.tolist()
    if not all(np.isfinite(each).all() for each in (scene.boxes, scores)):
        raise InputError("its boxes or scores hold NaN or infinity, which JSON does not have")
    results = [
        {
            "image_id": image_id,
            "category_id": category_ids[category],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for (x0, y0, x1, y1), category, score in zip(
            scene.boxes.tolist(), scene.classes.tolist(), scores, strict=True
        )
    ]
    return [f"{json.dumps(result)}\n" for result in results]


def _image_ids(paths: list[str], names: list[str], dataset_name: str) -> Sequence[int | str]:
    known: dict[str, int | str] = {}
    if dataset_name in DatasetCatalog.list() and not missing_paths(dataset_name):
        records = load_records(dataset_name)
        known = {os.path.realpath(r["file_name"]): r.get("image_id") for r in records}
    ids = [known.get(os.path.realpath(path)) for path in paths]
    if None not in ids:
        return ids
    stems = [os.path.basename(name) for name in names]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    # JSON has no half characters, which stand for the bytes of a name that is not UTF-8.
    return [name.encode(errors="backslashreplace").decode() for name in names]


def _refuse_overwriting(what: str, paths: list[str], targets: list[str]) -> None:
    taken = {os.path.realpath(path) for path in paths}
    for target in targets:
        if os.path.realpath(target) in taken:
            raise InputError(f"{target} would overwrite {what}: write it elsewhere")


def prediction_sheet(
    predictor: Predictor, dataset_name: str, num_images: int, *, min_score: float = 0.5
) -> np.ndarray:
    """Images spread evenly over a dataset, each beside its truth and its prediction.

    Args:
        predictor: of any backend.
        dataset_name: a registered dataset with its truth.
        num_images: rows of the sheet, at most.
        min_score: boxes below it are left out.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    records = load_records(dataset_name)
    painter = Painter(predictor.info)
    rows = []
    for record in spread_evenly(records, num_images):
        image = read_image(record["file_name"])
        truth = Scene.from_record(record, painter.tasks)
        found = predictor(image).above(min_score)
        rgb = np.ascontiguousarray(image[:, :, ::-1])
        if "instances" in painter.tasks:
            # The names of boxes have a size of their own, and would cover a small image.
            factor = -(-_READABLE // min(rgb.shape[:2]))
            rgb = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
            truth, found = truth.enlarged(factor), found.enlarged(factor)
        drawn = [painter.draw(rgb, scene, opacity=0.7) for scene in (truth, found)]
        rows.append([rgb, drawn[0], painter.add_legend(drawn[1], truth, found)])
    return make_sheet(rows, ["image", "truth", "prediction"])
