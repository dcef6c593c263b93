"""The description inside an exported file: its model, inputs, outputs and decoding."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..files import parse_json
from .fields import Fields, distinct, flag, integer, number, one_of, optional, text, tuple_of
from .model_info import MOST_SIDE, ModelInfo
from .output_names import BOX_DELTAS, BOXES, CLASS_LOGITS, LABELS, LOGITS

# Under it the description stands in ONNX's metadata_props and in OpenVINO's rt_info.
METADATA_KEY = "topformer_d2"
# Of the description; 1, which has no such number, is version 0.1.0's.
FORMAT = 2
# Of the weights in a file. An earlier version, which knows the first alone, reads no others.
PRECISIONS = ("float32", "float16", "int8")
_MOST_CHARACTERS = 1 << 24
_MOST_PIXELS = 1 << 28
_MOST = 1 << 31


@dataclass(frozen=True)
class BoxDecoding:
    """How a dense detector's raw outputs are decoded to boxes; levels are finest first.

    Attributes:
        strides: of each level, in pixels of the network's input.
        cell_anchors: for each level, A times (x0, y0, x1, y1) around a position's middle.
        offset: of a position's middle from its upper left corner, as a share of the stride.
        box_weights: by which the deltas (dx, dy, dw, dh) are divided.
        scale_clamp: dw and dh, divided, are at most this.
        score_threshold: of the scores that count; of those the best `topk` of each level do.
        nms_threshold: IoU above which the worse of two boxes of a class is dropped.
        max_detections: of an image.
    """

    strides: tuple[int, ...]
    cell_anchors: tuple[tuple[tuple[float, ...], ...], ...]
    offset: float
    box_weights: tuple[float, ...]
    scale_clamp: float
    score_threshold: float
    topk: int
    nms_threshold: float
    max_detections: int

    @classmethod
    def from_fields(cls, values: Fields) -> BoxDecoding:
        """Of an object of JSON that anybody may have written; ValueError where it is another."""
        strides = values.take("strides", tuple_of(integer(1, MOST_SIDE), most=16))
        box = tuple_of(number(-_MOST, _MOST), 4)
        decoding = cls(
            strides=strides,
            cell_anchors=values.take(
                "cell_anchors", tuple_of(tuple_of(box, most=1000), len(strides), one_for="strides")
            ),
            offset=values.take("offset", number(0, 1)),
            box_weights=values.take("box_weights", tuple_of(number(1e-6, 1e6), 4)),
            scale_clamp=values.take("scale_clamp", number(0, 50)),
            score_threshold=values.take("score_threshold", number(0, 1)),
            topk=values.take("topk", integer(1, _MOST)),
            nms_threshold=values.take("nms_threshold", number(0, 1)),
            max_detections=values.take("max_detections", integer(1, _MOST)),
        )
        values.end()
        if len(set(map(len, decoding.cell_anchors))) != 1 or not decoding.cell_anchors[0]:
            raise ValueError(f"{values.name('cell_anchors')}: each level has equally many")
        return decoding


@dataclass(frozen=True)
class ExportInfo:
    """The description inside an exported file.

    The input is "images", float32 (N, 3, H, W), normalised and in the order of
    model.image_format; or, with preprocessing inside, "image", uint8 (H0, W0, 3), BGR, of any size.

    The outputs are, for pixels, one of
    - "logits": float32 (N, K, h, w), at the stride of the head;
    - "labels": (N, H, W) of the input's size, (1, H0, W0) with preprocessing; uint8 up to 256
      classes, else int32;
    and for objects one of
    - "boxes" (n, 4) float32 XYXY, in pixels of the input and clipped to it (not in format 1),
      "scores" (n,) float32, "classes" (n,) int64: of one image, best first. A box that lies outside
      of the input has no area;
    - "class_logits_LEVEL" (N, A K, Hi, Wi) and "box_deltas_LEVEL" (N, A 4, Hi, Wi) for each level,
      finest first, in pixels of the network's input; `decoding` says what makes boxes of them.

    Attributes:
        model: the model's classes, normalisation and sizes.
        outputs: their names, in the graph's order.
        size: (H, W) of the network's input; None = free, any from 1 up.
        batch: N; None = free.
        with_preprocessing: resizing, channel order and normalisation are in the graph.
        decoding: of the objects, also where the graph does it; None where it has none, and of
            decoded boxes in format 1.
        versions: of what wrote the file, by name.
        precision: of its weights, one of PRECISIONS.
        format: of the description.
    """

    model: ModelInfo
    outputs: tuple[str, ...]
    size: tuple[int, int] | None = None
    batch: int | None = 1
    with_preprocessing: bool = False
    decoding: BoxDecoding | None = None
    versions: dict[str, str] = field(default_factory=dict)
    precision: str = PRECISIONS[0]
    format: int = FORMAT

    @property
    def input_name(self) -> str:
        return "image" if self.with_preprocessing else "images"

    @property
    def has_raw_boxes(self) -> bool:
        """Objects come as the head's outputs."""
        return any(name.startswith(CLASS_LOGITS) for name in self.outputs)

    def to_json(self) -> str:
        """All attributes. A file has them with sentences for those who read it: metadata_json."""
        values = dataclasses.asdict(self)
        if self.precision == PRECISIONS[0]:
            values.pop("precision")
        if values.pop("format") > 1:
            values = {"format": self.format, **values}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str, path: str) -> ExportInfo:
        """What to_json or metadata_json wrote into the file `path`: each value is checked.

        Raises:
            InputError: it is something else, or another version's.
        """
        try:
            if len(text) > _MOST_CHARACTERS:
                raise ValueError(f"it has {len(text)} characters")
            return cls._from_fields(Fields(parse_json(text, "its text")))
        except ValueError as e:
            raise InputError(
                f"{path} does not describe its model as this version does: {e}; export it again "
                "with this one"
            ) from e

    @classmethod
    def _from_fields(cls, values: Fields) -> ExportInfo:
        version = values.take("format", integer(1, _MOST)) if values.has("format") else 1
        if version > FORMAT:
            raise ValueError(f"its format is {version}, of a newer version; {FORMAT} is known")
        if version > 1 and values.has("explanation"):
            values.object("explanation")  # for people
        side = integer(1, MOST_SIDE)
        versions = values.object("versions")
        precision = PRECISIONS[0]
        if values.has("precision"):
            precision = values.take("precision", one_of(*PRECISIONS))
        info = cls(
            model=ModelInfo.from_fields(values.object("model")),
            outputs=values.take("outputs", lambda value: distinct(tuple_of(text, most=64)(value))),
            size=values.take("size", optional(tuple_of(side, 2))),
            batch=values.take("batch", optional(integer(1, 1 << 16))),
            with_preprocessing=values.take("with_preprocessing", flag),
            decoding=BoxDecoding.from_fields(values.object("decoding"))
            if values.has("decoding")
            else values.take("decoding", optional(flag)),
            versions={key: versions.take(key, text) for key in versions.keys()[:100]},
            precision=precision,
            format=version,
        )
        values.end()
        info._check()
        return info

    def _check(self) -> None:
        """ValueError where values that are right by themselves do not belong together."""
        tasks, names = self.model.tasks, list(self.outputs)
        levels = [n.removeprefix(CLASS_LOGITS) for n in names if n.startswith(CLASS_LOGITS)]
        pixels = [name for name in names if name in (LOGITS, LABELS)]
        objects = [start + level for start in (CLASS_LOGITS, BOX_DELTAS) for level in levels]
        if not levels and "instances" in tasks:
            objects = list(BOXES)
        if (
            names != pixels + objects
            or len(pixels) != ("sem_seg" in tasks)
            or (bool(objects) != ("instances" in tasks))
        ):
            raise ValueError(f"outputs are {names}, which is not what {list(tasks)} gives")
        expects = bool(levels) if self.format == 1 else bool(objects)
        if expects != (self.decoding is not None):
            raise ValueError(f"decoding is {'missing' if expects else 'there'} of {names}")
        if levels and len(levels) != len(self.decoding.strides):
            raise ValueError(f"decoding has {len(self.decoding.strides)} levels of {names}")
        is_single = self.with_preprocessing or (objects and not levels)
        if is_single and self.batch != 1:
            raise ValueError(f"batch is {self.batch}; such outputs are of one image")
        height, width = self.size or (1, 1)
        if height * width * (self.batch or 1) > _MOST_PIXELS:
            raise ValueError(f"size is {self.size} and batch {self.batch}, which is too much")

    @classmethod
    def from_onnx_metadata(cls, metadata: Mapping[str, str], path: str) -> ExportInfo:
        """Of an ONNX file.

        Args:
            metadata: its metadata_props; ONNX Runtime's
                session.get_modelmeta().custom_metadata_map.
            path: of the file, for the message.

        Raises:
            InputError: the file was not written by `topformer export`.
        """
        if METADATA_KEY not in metadata:
            raise InputError(f"{path} does not describe its model: {_FIX}")
        return cls.from_json(metadata[METADATA_KEY], path)

    @classmethod
    def from_openvino(cls, model: Any, path: str) -> ExportInfo:
        """Of an openvino.Model; `path` and errors as from_onnx_metadata has them."""
        if not model.has_rt_info(METADATA_KEY):
            raise InputError(f"{path} does not describe its model: {_FIX}")
        return cls.from_json(model.get_rt_info(METADATA_KEY).astype(str), path)


_FIX = "write it with `topformer export`"
