"""Checks of an exported graph and its outputs against the description in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .export_info import BOX_DELTAS, BOXES, CLASS_LOGITS, LABELS, LOGITS, ExportInfo


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        name: of it.
        kind: "float", "uint8", "int32", "int64"; others by the runtime's name.
        shape: its sides; None for one that is free, or for all of them.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] | None


def check_graph(
    info: ExportInfo, inputs: Sequence[Tensor], outputs: Sequence[Tensor], path: str
) -> None:
    """InputError where the graph of the file at `path` is not the one that `info` describes."""
    expected_inputs, expected_outputs = _expected_input(info), _expected_outputs(info)
    for what, found, expected in (
        ("takes", inputs, {info.input_name: expected_inputs}),
        ("gives", outputs, expected_outputs),
    ):
        names = [tensor.name for tensor in found]
        if names != list(expected):
            raise _differs(path, f"it {what} {names[:20]} instead of {list(expected)}")
        for tensor in found:
            kinds, shape = expected[tensor.name]
            if tensor.kind not in kinds or not _fits(tensor.shape, shape):
                raise _differs(
                    path,
                    f"it {what} {tensor.name} as {tensor.kind} {_shape(tensor.shape)} instead of "
                    f"{' or '.join(kinds)} {_shape(shape)}",
                )


def check_counts(info: ExportInfo, inputs: int, outputs: int, path: str) -> None:
    """InputError where a graph whose tensors have no names has another number of them."""
    if (inputs, outputs) != (1, len(info.outputs)):
        raise _differs(
            path,
            f"it takes {inputs} and gives {outputs} tensors instead of 1 and {len(info.outputs)}",
        )


def check_answer(info: ExportInfo, outputs: Mapping[str, np.ndarray], path: str) -> None:
    """InputError where an answer has classes or shapes that `info` does not know."""
    expected = _expected_outputs(info)
    for name, values in outputs.items():
        if values.ndim != len(expected[name][1]):
            raise _differs(path, f"it gives {name} of shape {values.shape}")
    pixels, objects = len(info.model.pixels.names), len(info.model.objects.names)
    logits, labels = outputs.get(LOGITS), outputs.get(LABELS)
    if logits is not None and logits.shape[1] != pixels:
        raise _differs(path, f"it gives {logits.shape[1]} classes of pixels instead of {pixels}")
    if labels is not None and labels.size and not 0 <= labels.min() <= labels.max() < pixels:
        raise _differs(path, f"it gives the label {labels.max()} of {pixels} classes of pixels")
    if BOXES[0] in outputs:
        boxes, scores, classes = (outputs[name] for name in BOXES)
        if boxes.shape != (len(scores), 4) or len(classes) != len(scores):
            raise _differs(path, f"it gives boxes of shape {boxes.shape} to {len(scores)} scores")
        if classes.size and not 0 <= classes.min() <= classes.max() < objects:
            raise _differs(path, f"it gives class {classes.max()} of {objects} classes of objects")
    if info.has_raw_boxes:
        _check_raw_boxes(info, outputs, path)


def _check_raw_boxes(info: ExportInfo, outputs: Mapping[str, np.ndarray], path: str) -> None:
    """Before they are decoded: logits and deltas of each level, for each of its positions."""
    expected = _expected_outputs(info)
    for name in info.outputs:
        if not name.startswith(CLASS_LOGITS):
            continue
        other = BOX_DELTAS + name.removeprefix(CLASS_LOGITS)
        sides = [outputs[each].shape[2:] for each in (name, other)]
        channels = [outputs[each].shape[1:2] for each in (name, other)]
        if (
            len(sides[0]) != 2
            or sides[0] != sides[1]
            or channels != [expected[each][1][1:2] for each in (name, other)]
        ):
            shapes = f"{outputs[name].shape} and {other} of shape {outputs[other].shape}"
            raise _differs(path, f"it gives {name} of shape {shapes}")


def _differs(path: str, how: str) -> InputError:
    return InputError(f"{path} is not the network that it describes: {how}; export it again")


def _expected_input(info: ExportInfo) -> tuple[tuple[str, ...], tuple]:
    if info.with_preprocessing:
        return ("uint8",), (None, None, 3)
    return ("float",), (info.batch, 3, *(info.size or (None, None)))


def _expected_outputs(info: ExportInfo) -> dict[str, tuple[tuple[str, ...], tuple]]:
    """By name their types and shapes; a side of None may be any."""
    pixels, objects = len(info.model.pixels.names), len(info.model.objects.names)
    sizes = info.size if info.size and not info.with_preprocessing else (None, None)
    found = {
        LOGITS: (("float",), (info.batch, pixels, None, None)),
        LABELS: (("uint8",) if pixels <= 256 else ("int32",), (info.batch, *sizes)),
        BOXES[0]: (("float",), (None, 4)),
        BOXES[1]: (("float",), (None,)),
        BOXES[2]: (("int64",), (None,)),
    }
    anchors = len(info.decoding.cell_anchors[0]) if info.decoding else 0
    for name in info.outputs:
        for start, channels in ((CLASS_LOGITS, anchors * objects), (BOX_DELTAS, anchors * 4)):
            if name.startswith(start):
                found[name] = (("float",), (info.batch, channels, None, None))
    return {name: found[name] for name in info.outputs}


def _fits(shape: tuple[int | None, ...] | None, expected: tuple[int | None, ...]) -> bool:
    """A side that the graph leaves free, or the runtime does not know, may be the one expected."""
    if shape is None:
        return True
    return len(shape) == len(expected) and all(
        n is None or m is None or n == m for n, m in zip(shape, expected, strict=True)
    )


def _shape(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "of any shape"
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
