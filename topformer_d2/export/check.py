"""Check of an exported file against the PyTorch model that it came from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from detectron2.structures import ImageList
from torch import Tensor, nn

from ..data.augmentation import fit_within
from ..data.image_files import list_images
from ..data.images import read_image
from ..data.registered import spread_evenly
from ..data.synthetic import make_sample
from ..errors import InputError
from ..inference.export_info import BOXES, LABELS, LOGITS, ExportInfo
from ..inference.optimization import rounded_to_float16
from ..modeling import RawOutput, adapt
from .boxes import box_decoding
from .compare_boxes import Candidates, Detections, Limits, compare_boxes
from .differences import TOLERANCE, Difference, compare_labels, compare_values, tolerance
from .network import resize

# Where sizes are free: some that are multiples of 64 and some odd ones, either way round.
_SIZES = ((192, 256), (97, 131), (250, 161), (64, 64))
# Images of a folder that are used, and their longer side, for the labels of all classes at an
# image's own size are held at once.
_MAX_IMAGES = 4
_MAX_SIDE = 1024
# Up to it images come in batches, which twice those labels would be too much for.
_MAX_BATCHED_SIDE = 256


def sample_images(folder: str | None) -> Iterator[tuple[str, np.ndarray]]:
    """What a file is checked on: names and images (H, W, 3) uint8 BGR.

    Args:
        folder: of images; some of it are used. None = the synthetic dataset's.
    """
    rng = np.random.default_rng(0)
    for height, width in _SIZES:
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        yield f"noise of {height}x{width}", noise
    if folder is None:
        for seed, (height, width) in enumerate(_SIZES):
            image = make_sample(seed, height, width)[0]
            yield f"synthetic image of {height}x{width}", np.array(image[:, :, ::-1], order="C")
        return
    for path in spread_evenly(list_images(folder, "images"), _MAX_IMAGES):
        image = np.array(read_image(path), order="C")  # PyTorch takes no negative strides
        height, width = image.shape[:2]
        if max(height, width) > _MAX_SIDE:
            height, width = fit_within(height, width, _MAX_SIDE, _MAX_SIDE)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        yield path, image


def check(
    run: Callable[[np.ndarray], dict[str, np.ndarray]],
    model: nn.Module,
    info: ExportInfo,
    images: Iterable[tuple[str, np.ndarray]],
) -> list[Difference]:
    """The largest difference in each output over all images; none of boxes where none is found.

    Args:
        run: the exported network: its input to its outputs by name.
        model: what it was made of; is put into inference.
        info: its description.
        images: as from sample_images.

    Raises:
        InputError: a difference is above its limit; the message names the output and the place. Or
            the network cannot be run, or the model's own values are not finite.
    """
    model = model.eval()
    rounded = rounded_to_float16(adapt(model)) if info.precision == "float16" else None
    largest: dict[str, Difference] = {}
    for name, image in images:
        x = _to_input(image, model, info)
        try:
            outputs = run(x.numpy())
        except Exception as e:  # the runtimes' exceptions have no base of their own
            raise InputError(
                f"the exported network cannot be run on {name}: {e}; it was not written"
            ) from e
        compare = partial(compare_outputs, outputs, model, info, x, rounded)
        differences = list(compare())
        if any(found.share > 1 for found in differences):  # float32 may give it no better
            differences = list(compare(with_rounding=True))
        for found in differences:
            before = largest.get(found.output)
            if before is None or found.share > before.share:
                largest[found.output] = replace(found, where=f"{found.where}; on {name}")
    for found in largest.values():
        if found.share > 1:
            raise InputError(
                f"the exported network is not PyTorch's. {found}; {found.limit:.2g} is the most. "
                "It was not written"
            )
    return list(largest.values())


@torch.inference_mode()
def compare_outputs(
    outputs: Mapping[str, np.ndarray],
    model: nn.Module,
    info: ExportInfo,
    x: Tensor,
    rounded: nn.Module | None = None,
    *,
    with_rounding: bool = False,
) -> Iterator[Difference]:
    """The differences of an exported network's outputs for the input `x` from the model's.

    Args:
        rounded: `model` with the weights in float16 that the file has; how far it is from `model`
            is then found out, for the limits.
        with_rounding: find out how far float32 is from double precision instead, where there is no
            `rounded`; the network runs once more for that.
    """
    images = _preprocess(x, model, info) if info.with_preprocessing else x
    raw = adapt(model).network(images)
    values = raw.tensors()
    if not all(bool(each.isfinite().all()) for each in values):
        raise InputError(
            "the model itself, in PyTorch, gives values that are not finite: look at its weights. "
            "Nothing was written"
        )
    logits, rounding = raw.logits, [0.0] * len(values)
    if rounded is not None:
        other = rounded.network(images).tensors()
        rounding = [float((a - b).abs().max()) for a, b in zip(values, other, strict=True)]
    elif with_rounding:
        exact = copy.deepcopy(adapt(model)).double().network(images.double()).tensors()
        rounding = [float((a - b).abs().max()) for a, b in zip(values, exact, strict=True)]
    given = dict(outputs)
    if LOGITS in given:
        yield compare_values(LOGITS, logits, given.pop(LOGITS), rounding[0])
    if LABELS in given:
        logits = resize(logits, images.shape[2:])
        if info.with_preprocessing:
            logits = resize(logits, x.shape[:2])
        yield compare_labels(LABELS, logits, given.pop(LABELS), rounding[0])
    if BOXES[0] in given:
        size = x.shape[:2] if info.with_preprocessing else x.shape[2:]
        found = Detections(*(torch.from_numpy(given.pop(name)) for name in BOXES))
        limits = _limits(model, raw.class_logits, raw.box_deltas, rounding)
        expected = _find_boxes(model, images, raw, size, limits)
        yield from compare_boxes(expected, found, box_decoding(model), limits)
    if given:
        count = 2 * len(raw.class_logits)
        levels = zip(given, values[-count:], rounding[-count:], strict=True)
        for name, expected, error in levels:
            yield compare_values(name, expected, given[name], error)


def _limits(
    model: nn.Module, logits: Sequence[Tensor], deltas: Sequence[Tensor], rounding: Sequence[float]
) -> Limits:
    """What may be off in boxes and scores where the raw outputs are off by their own tolerance."""
    weight, count = min(model.box2box_transform.weights), len(deltas)
    boxes = map(tolerance, deltas, rounding[-count:])
    scores = map(tolerance, logits, rounding[-2 * count : -count])
    return Limits(
        boxes=max(TOLERANCE, *(most / weight for most, _ in boxes)),
        # The sigmoid is a quarter as steep, at most.
        scores=max(TOLERANCE, *(most / 4 for most, _ in scores)),
    )


def _find_boxes(
    model: nn.Module, images: Tensor, raw: RawOutput, size: Sequence[int], limits: Limits
) -> Candidates:
    """By the meta-architecture's own decoding, in pixels of an input of `size`."""
    kept = _decode(model, images, raw.class_logits, raw.box_deltas)
    levels = _find_candidates(model, raw, limits)
    boxes, starts, scores, classes, lowest = map(torch.cat, zip(*levels, strict=True))
    height, width = (a / b for a, b in zip(size, images.shape[2:], strict=True))
    scale = torch.tensor([width, height, width, height])
    boxes, starts = boxes * scale, starts * scale
    units = sum((each[:, 2:] - each[:, :2]).repeat(1, 2) for each in (boxes, starts))
    found = Detections(boxes, scores, classes)
    kept = Detections(kept.boxes * scale, kept.scores, kept.classes)
    return Candidates(found, units, lowest, _locate(kept, found, units), (size[0], size[1]))


def _find_candidates(
    model: nn.Module, raw: RawOutput, limits: Limits
) -> Iterator[tuple[Tensor, ...]]:
    """Each level's before the NMS, also those just below the lowest that is taken.

    Yields:
        boxes and anchors (n, 4), scores, classes and Candidates.lowest (n,).
    """
    all_anchors = model.anchor_generator(raw.class_logits)  # which reads the sizes alone
    for anchors, logits, deltas in zip(all_anchors, raw.class_logits, raw.box_deltas, strict=True):
        scores, lowest = logits.sigmoid().flatten(), model.test_score_thresh
        if len(scores) > model.test_topk_candidates:
            lowest = max(lowest, float(scores.topk(model.test_topk_candidates).values[-1]))
        positions = logits.shape[2] * logits.shape[3]
        scores = scores.reshape(-1, model.num_classes, positions)
        deltas = deltas.reshape(-1, 4, positions)
        found = scores > max(lowest - 2 * limits.scores, 1e-6)
        anchor, category, position = torch.nonzero(found).unbind(dim=1)
        starts = anchors.tensor[position * len(scores) + anchor]
        boxes = model.box2box_transform.apply_deltas(deltas[anchor, :, position], starts)
        yield boxes, starts, scores[found], category, torch.full((len(starts),), lowest)


def _locate(kept: Detections, found: Detections, units: Tensor) -> Tensor:
    """(m,): where each of `kept` is in `found`; of another number they differ in the last bits."""
    distances = ((kept.boxes[:, None] - found.boxes).abs() / units).amax(dim=2)
    distances += (kept.scores[:, None] - found.scores).abs()
    distances.masked_fill_(kept.classes[:, None] != found.classes, float("inf"))
    indices = []
    for row in distances:
        indices.append(int(row.argmin()))
        distances[:, indices[-1]] = float("inf")
    return torch.tensor(indices, dtype=torch.int64)


def _decode(
    model: nn.Module, images: Tensor, logits: Sequence[Tensor], deltas: Sequence[Tensor]
) -> Detections:
    batch = ImageList(images, [tuple(images.shape[2:])])
    # RetinaNet makes scores of the logits where they lie, if a level is one pixel.
    logits = [level.clone() for level in logits]
    with warnings.catch_warnings():
        # Detectron2's anchors leave out a keyword.
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        # Of the features it uses the sizes alone, for its anchors.
        found = model.forward_inference(batch, logits, [logits, list(deltas)])[0]
    return Detections(found.pred_boxes.tensor.clone(), found.scores, found.pred_classes)


def _to_input(image: np.ndarray, model: nn.Module, info: ExportInfo) -> Tensor:
    """The input of the exported network for an image (H, W, 3) uint8 BGR.

    Where the batch is free, it is a batch of the image, if it is small, and its mirror image.
    """
    if info.with_preprocessing:
        return torch.from_numpy(image)
    if info.size is not None:
        image = cv2.resize(image, info.size[::-1])
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    images = _normalize(planes, model, info)
    is_batch = info.batch is None and max(image.shape[:2]) <= _MAX_BATCHED_SIDE
    return torch.cat([images, images.flip(3)]) if is_batch else images


def _preprocess(image: Tensor, model: nn.Module, info: ExportInfo) -> Tensor:
    """(H0, W0, 3) uint8 BGR to (1, 3, H, W), by the protocol's own sizes."""
    sizes = [info.size] if info.size else info.model.resizing().sizes(*image.shape[:2])
    # In double, for PyTorch's float32 rounds positions by more than other runtimes do.
    planes = image.permute(2, 0, 1)[None].double()
    for size in sizes:
        planes = resize(planes, size)
    return _normalize(planes.float(), model, info)


def _normalize(planes: Tensor, model: nn.Module, info: ExportInfo) -> Tensor:
    """(N, 3, H, W) BGR, 0..255, as the model's own input."""
    if info.model.image_format == "RGB":
        planes = planes.flip(1)
    return (planes - model.pixel_mean) / model.pixel_std
