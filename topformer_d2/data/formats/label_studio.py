"""Label Studio's JSON export: one file, a list of tasks.

Sources: https://labelstud.io/guide/export and the pages of the tags RectangleLabels, PolygonLabels,
EllipseLabels and BrushLabels.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ...errors import InputError, shortened
from .brush_rle import brush_alpha
from .contract import DatasetFormat, LabelledImage, Labelling, Shape
from .regions import ellipse, place_mask, turned_box
from .shape_files import (
    MALFORMED,
    MAX_DATASET_BYTES,
    NOT_USED,
    Faults,
    ImageNames,
    has_texts,
    head_of,
    load_json,
    one_file,
    small_json,
    used_names,
)
from .values import (
    checked_numbers,
    class_name,
    clean_name,
    entries_of,
    flat_points,
    image_size,
    number,
)

_CHOOSE = "choose the export JSON, not JSON-MIN, CSV or TSV"
# What the server puts before the name of a file that is uploaded.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
_IMAGE_KEYS = ("image", "img", "image_url", "url")
_PARSED = 32 << 20  # bytes of a file that a detection parses
_JSON_MIN = ("annotator", "annotation_id", "lead_time")


def detect(path: str, images: str) -> bool:
    """Whether it is Label Studio's JSON or JSON-MIN, or a folder whose only JSON is one."""
    file = one_file(path, ".json")
    if file is None or not head_of(file, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return False
    try:
        if os.path.getsize(file) > _PARSED:
            return has_texts(file, '"data"', '"annotations"', '"result"')
    except OSError:
        return False
    content = small_json(file)
    return isinstance(content, list) and bool(content) and _is_task(content[0], with_min=True)


def _is_task(task: Any, *, with_min: bool = False) -> bool:
    if not isinstance(task, dict):
        return False
    if isinstance(task.get("data"), dict):
        return any(isinstance(task.get(key), list) for key in ("annotations", "completions"))
    return with_min and sum(key in task for key in _JSON_MIN) >= 2


def read(path: str, images: str) -> Labelling:
    """What the file says: of each task the last annotation that is not cancelled.

    A task without one has no labels, so its image is left out. Predictions are not read.

    Raises:
        InputError: it is not Label Studio's JSON, or none of its tasks is annotated.
    """
    file = one_file(path, ".json")
    if file is None:
        raise InputError(f"{path} is not one .json file of Label Studio: {_CHOOSE} and name it")
    content = load_json(file, MAX_DATASET_BYTES)
    if not isinstance(content, list) or not any(map(_is_task, content)):
        is_min = isinstance(content, list) and any(_is_task(t, with_min=True) for t in content)
        what = "Label Studio's JSON-MIN" if is_min else "not Label Studio's JSON, a list of tasks"
        raise InputError(f"{file} is {what}: {_CHOOSE}")
    faults, folder = Faults(file), ImageNames(images)
    unused: Counter = Counter()
    found = []
    for index, task in enumerate(content):
        what = f"task {shortened(task.get('id', index), 40) if _is_task(task) else index}"
        try:
            if (results := _results(task, what)) is not None:
                found.append(_read_task(task, results, file, what, folder, faults, unused))
        except InputError as e:
            faults.add(MALFORMED, e)
    for kind, count in unused.items():
        faults.add(
            NOT_USED, f"{count} results of the type {kind!r} have no region and are left out"
        )
    if not found:
        problems = faults.problems()
        why = problems[0].message if problems else "submit annotations, and export again"
        raise InputError(f"{file}: none of its {len(content)} tasks has an annotation: {why}")
    return Labelling(found, used_names(found), problems=faults.problems())


def _results(task: Any, what: str) -> list | None:
    """The results of a task's last annotation that is not cancelled; None where there is none."""
    if not _is_task(task):
        raise InputError(f"{what} is {shortened(task, 60)}, which is no task with annotations")
    annotations = task.get("annotations")
    if not isinstance(annotations, list):  # before version 1.0
        annotations = task["completions"]
    valid = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
    if not valid:
        return None
    results = valid[-1].get("result")
    if not isinstance(results, list):
        raise InputError(f"{what}: its annotation's 'result' is {shortened(results, 60)}")
    return results


def _read_task(
    task: dict,
    results: list,
    file: str,
    what: str,
    folder: ImageNames,
    faults: Faults,
    unused: Counter,
) -> LabelledImage:
    image = folder.pick(_image_names(task["data"], what))
    # A region drawn apart from its label is a result, and the label another one with its id.
    labelled = {_id(r) for r in results if isinstance(r, dict) and _has_labels(r)} - {None}
    size = None
    shapes: list[Shape] = []
    for index, result in entries_of(results, what):
        where = f"result {index + 1} of {what} ({image})"
        try:
            if not isinstance(result, dict) or not isinstance(result.get("value", {}), dict):
                raise InputError(f"{where} is {shortened(result, 60)}; it takes a region")
            value = result.get("value", {})
            if not _has_labels(result) and _id(result) in labelled:
                continue
            region = _region(value)
            if region is None:
                unused[shortened(result.get("type"), 40).strip("'")] += 1
                continue
            its_size = image_size(result.get("original_width"), result.get("original_height"))
            if its_size is None:
                raise InputError(
                    f"{where}: original_width or original_height is missing or wrong: export anew"
                )
            if turned := result.get("image_rotation"):
                raise InputError(
                    f"{where}: the image was turned by {shortened(turned, 20)} degrees in Label "
                    "Studio, and so are its regions: turn it back there and export anew"
                )
            size = size or its_size
            shapes += _shapes(value, region, its_size, where)
        except InputError as e:
            faults.add(MALFORMED, e)
    return LabelledImage(image, *(size or (None, None)), tuple(shapes), source=file)


def _image_names(data: dict, what: str) -> tuple[str, ...]:
    """Names that the image of a task may have, from a path or URL of its data."""
    texts = [v for v in data.values() if isinstance(v, str)]
    known = [data[key] for key in _IMAGE_KEYS if isinstance(data.get(key), str)]
    like_paths = [text for text in texts if re.search(r"\.\w{3,5}($|\?)", text)]
    if not (chosen := (known or like_paths or texts)):
        raise InputError(f"{what}: its 'data' names no image: {shortened(data, 80)}")
    text = chosen[0]
    if text.startswith("data:"):
        raise InputError(f"{what}: its image is in the JSON; save it as a file and name that")
    try:
        parts = urlsplit(text)
        local = parse_qs(parts.query).get("d") if "/local-files/" in parts.path else None
    except ValueError as e:
        raise InputError(f"{what}: its image {shortened(text, 80)} is no path or URL: {e}") from e
    name = local[0] if local else text if not parts.scheme else parts.path
    if not local and parts.path.startswith("/data/"):
        name = parts.path
    name = clean_name(name, f"the image of {what}")
    plain = unquote(name) if not local else name
    # The folder of an upload, or of a URL, is not one of the user's.
    is_path = not parts.scheme and not name.startswith("/data/upload/")
    base = os.path.basename(plain)
    if not base:
        raise InputError(f"{what}: its image {shortened(text, 80)} names no file")
    names = [plain.lstrip("/") if is_path else base, base, os.path.basename(name)]
    if found := _UPLOADED.fullmatch(base):
        names.append(found[1])
    return tuple(dict.fromkeys(names))


def _id(result: dict) -> str | None:
    found = result.get("id")
    return found if isinstance(found, str) else None


def _has_labels(result: dict) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and bool(_labels(value))


def _labels(value: dict) -> list:
    for key, labels in value.items():
        if str(key).endswith("labels") and isinstance(labels, list) and labels:
            return labels
    return []


def _region(value: dict) -> str | None:
    """Which region a result's value has; None where it has none, as of key points and choices."""
    if "rle" in value:
        return "brush"
    if "radiusX" in value:
        return "ellipse"
    if "points" in value and "vertices" not in value:
        return "polygon"
    return "rectangle" if "height" in value and "x" in value else None


def _shapes(value: dict, region: str, size: tuple[int, int], where: str) -> list[Shape]:
    """The region, once for each of its labels."""
    if not (labels := _labels(value)):
        raise InputError(f"{where} is a {region} without a label: choose one in Label Studio")
    names = [class_name(label, where) for label in labels]
    width, height = size
    x_scale, y_scale = width / 100, height / 100

    def scaled(*keys: str) -> list[float]:
        found = [number(value.get(key), f"{key} of {where}") for key in keys]
        return [each * (y_scale if i % 2 else x_scale) for i, each in enumerate(found)]

    degrees = number(value.get("rotation") or 0, f"rotation of {where}")
    box = rle = None
    polygons: tuple[tuple[float, ...], ...] = ()
    if region == "brush":
        alpha = brush_alpha(value["rle"], width, height, where)
        rle = place_mask(alpha > 0, 0, 0, size, where)
    elif region == "ellipse":
        x, y, rx, ry = scaled("x", "y", "radiusX", "radiusY")
        polygons = (ellipse(x, y, rx, ry, degrees),)
    elif region == "polygon":
        points = flat_points(value["points"], where)
        polygons = (tuple(each * (y_scale if i % 2 else x_scale) for i, each in enumerate(points)),)
    else:
        x, y, w, h = scaled("x", "y", "width", "height")
        box = (x, y, x + w, y + h)
        if degrees:
            # It is turned around its first corner.
            box, polygons = None, (turned_box(box, degrees, (x, y)),)
    for polygon in polygons:
        checked_numbers(polygon, where)
    return [Shape(name, box, polygons, rle) for name in names]


FORMAT = DatasetFormat("label_studio", ("sem_seg", "instances"), detect, read)
