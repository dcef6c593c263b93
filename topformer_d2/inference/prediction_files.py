"""Label maps and boxes of image files, written to a folder."""

from __future__ import annotations

import mimetypes
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from detectron2.data import DatasetCatalog
from tqdm.auto import tqdm

from ..data.images import MAX_PIXELS, write_image
from ..data.registered import load_records, missing_paths
from ..data.scene import Scene
from ..errors import InputError, about
from ..files import check_output, is_remote, make_folder
from .batches import noting_trouble, predict_in_batches
from .label_files import LabelWriter, open_writer
from .predictor import Predictor
from .results import check_results, result_lines, written_however_it_ends

# What an output's name ends in, after that of its image.
LABEL, _OVERLAY = "_label.png", "_overlay.jpg"


def split_outputs(paths: Sequence[str | os.PathLike]) -> tuple[list[str], list[str]]:
    """Image files, and those of them that seem to be what an earlier run wrote of others.

    The latter are named as what write_predictions writes of another one: "a_overlay.jpg" where
    there is an "a.jpg", in whichever folder.
    """
    files = [os.fspath(path) for path in paths]
    names = [os.path.basename(file) for file in files]
    # An output's name has the image's extension where another image differs in that alone.
    stems = {*names, *(os.path.splitext(name)[0] for name in names)}
    parts: tuple[list[str], list[str]] = ([], [])
    for file, name in zip(files, names, strict=True):
        images = [name.removesuffix(end) for end in (LABEL, _OVERLAY) if name.endswith(end)]
        parts[not stems.isdisjoint(images)].append(file)
    return parts


def write_predictions(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    json_file: str | os.PathLike | None = None,
    max_pixels: int = MAX_PIXELS,
    draw: Callable[[np.ndarray, Scene], np.ndarray] | None = None,
    label_format: str | None = None,
    min_score: float = 0.5,
    keep: Sequence[str | os.PathLike] = (),
) -> list[str]:
    """Write `<name>_label.png` of each image below `output`, where pixels are labelled.

    Label maps hold class indices, 8 bit up to 256 classes and 16 bit above; output_names names
    them. Images are predicted in batches, as predict_in_batches does it.

    Args:
        predictor: of any backend.
        paths: image files.
        output: folder, made where it is missing.
        json_file: where all boxes are written in COCO's results format, one JSON object a line.
            Images of the dataset that the model's classes come from have their image_id; others
            are numbered by their names, as COCO's are, where all names are numbers, and named
            otherwise. It has the boxes of the images that were done also where the run ends
            early, as by Ctrl-C or a full disk; an earlier file stays where none was.
        max_pixels: of an image; larger ones are not read.
        draw: what makes an overlay of an image (H, W, 3) uint8 BGR and what is in it, also uint8
            BGR, to be written as `<name>_overlay.jpg`; None = there are no overlays.
        label_format: "labelme", "yolo" or "coco", in which what was found is also written for a
            labelling tool (label_files); None = it is not.
        min_score: boxes below it are left out of these; json_file has all.
        keep: files that lie among the inputs and are not predicted, which nothing is written over.

    Returns:
        One line for each image that could not be read, predicted or written whole.

    Raises:
        InputError: an output would overwrite an input, one of `keep` or an earlier label file,
            which may have been corrected by hand since, `output` is a file, or named as a picture
            or video is, json_file cannot be written, there are no boxes or no category ids to write
            to it, or nothing at all would be written.
        OSError: one that the next image would meet as well, such as a full disk.
    """
    info = predictor.info
    files, output = [os.fspath(path) for path in paths], os.fspath(output)
    json_file = os.fspath(json_file) if json_file else None
    names = output_names(files)
    endings = [LABEL] if "sem_seg" in info.tasks else []
    endings += [_OVERLAY] if draw else []
    if not endings and not json_file and not label_format:
        raise InputError(
            "this model finds boxes alone, and without overlays they are written nowhere: name "
            "`json_file` or `label_format`"
        )
    pictures = [os.path.join(output, name + ending) for ending in endings for name in names]
    kept = [os.fspath(path) for path in keep]
    _refuse_overwriting("an input", files, pictures)
    fix = "name another `output`, or remove those files where an earlier run wrote them"
    _refuse_overwriting("a file among the inputs", kept, pictures, fix)
    if json_file:
        check_results(json_file, info)
        _refuse_overwriting("an input", [*files, *kept], [json_file])
        _refuse_overwriting("a picture", pictures, [json_file])
    labels = open_writer(label_format, output, info, files, names) if label_format else None
    if labels:
        _check_label_files(labels, [*files, *kept, *([json_file] if json_file else [])])
    _make_folder(output)
    if json_file:
        check_output(json_file, "json_file")
    image_ids: Sequence[int | str] = names
    if json_file:
        image_ids = image_ids_of(files, names, info.objects.dataset)
    problems: list[str] = []
    lines: list[str] = []
    predictions = predict_in_batches(
        predictor, files, batch_size=predictor.backend.batch, max_pixels=max_pixels
    )
    shown = tqdm(predictions, total=len(files), unit="image")
    with written_however_it_ends(json_file, lines, labels):
        for i, (found, name, image_id) in enumerate(zip(shown, names, image_ids, strict=True)):
            if found.scene is not None:
                with noting_trouble(found):
                    of_image: list[str] = []
                    if json_file:
                        of_image = result_lines(found.scene, image_id, info.objects.ids)
                    _write_pictures(os.path.join(output, name), found.image, found.scene, draw)
                    if labels:
                        labels.add(i, found.scene.above(min_score))
                    lines += of_image  # of images that are done: not before their pictures are
            if found.problem is not None:
                problems.append(found.problem)
    return problems


def _write_pictures(
    stem: str,
    image: np.ndarray,
    scene: Scene,
    draw: Callable[[np.ndarray, Scene], np.ndarray] | None,
) -> None:
    """The label map, where there is one, and the overlay, where one is drawn."""
    if scene.label is not None:
        write_image(stem + LABEL, scene.label)
    if draw is not None:
        write_image(stem + _OVERLAY, draw(image, scene))


def _check_label_files(labels: LabelWriter, others: list[str]) -> None:
    """Raise InputError where label files would take the place of others."""
    targets = labels.targets()
    _refuse_overwriting("an input or an output", others, targets)
    there = [target for target in targets if os.path.lexists(target)]
    if there:
        raise InputError(
            f"{there[0]} exists, and may have been corrected by hand: name another `output`, or "
            f"move away {'it' if len(there) == 1 else f'the {len(there)} label files'}"
        )


def _make_folder(output: str) -> None:
    """Make the folder; InputError where it is a file or its name is a picture's or a video's."""
    kind = (mimetypes.guess_type(output)[0] or "").partition("/")[0]
    if kind in ("image", "video") and not os.path.isdir(output):
        raise InputError(f"{output} has the name of one {kind}: images are written to a folder")
    with about("`output`"):
        make_folder(output)


def image_ids_of(
    paths: Sequence[str], names: Sequence[str], dataset_name: str
) -> Sequence[int | str]:
    """The image_id of each file in COCO's results, as write_predictions says.

    Args:
        paths: image files.
        names: of their outputs, by output_names.
        dataset_name: that the model's classes come from.
    """
    known: dict[str, int | str] = {}
    if dataset_name in DatasetCatalog.list() and not missing_paths(dataset_name):
        records = load_records(dataset_name)
        known = {os.path.realpath(r["file_name"]): r.get("image_id") for r in records}
    # Without a dataset, no path need be looked up, which takes long for very many.
    ids = [known.get(os.path.realpath(path)) for path in paths] if known else [None]
    if None not in ids:
        return ids
    stems = [os.path.basename(name) for name in names]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    # JSON has no half characters, which stand for the bytes of a name that is not UTF-8.
    return [
        name if name.isascii() else name.encode(errors="backslashreplace").decode()
        for name in names
    ]


def _refuse_overwriting(
    what: str, paths: list[str], targets: list[str], fix: str = "write it elsewhere"
) -> None:
    taken = {os.path.realpath(path) for path in paths}
    for target in targets:
        if os.path.realpath(target) in taken:
            raise InputError(f"{target} would overwrite {what}: {fix}")


def output_names(paths: Sequence[str | os.PathLike]) -> list[str]:
    """A name for each file's outputs: its path below the folder that all share, no extension.

    A URI's path is the scheme, the host and what follows.

    Files that differ in the extension alone keep it, and so do those whose name without it is
    another's with it. What is then still equal, or differs in its case alone, as some file systems
    do not tell apart, gets "-2", "-3" and so on. No two names are equal in that sense.
    """
    if not paths:
        return []
    # A URI does not depend on the working folder.
    full = [
        os.path.normpath(f"{os.sep}{path}") if is_remote(path) else os.path.abspath(path)
        for path in [os.fspath(each) for each in paths]
    ]
    root = os.path.commonpath({os.path.dirname(path) for path in full})
    start = len(os.path.join(root, ""))
    full = [path[start:] for path in full]
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
    if name.isascii():  # as most are, of very many
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
