"""What an exported file says of itself: its model, and how its graph is to be fed and read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import InputError
from .model_info import ModelInfo, as_tuple

# Under it the description stands in ONNX's metadata_props and in OpenVINO's rt_info.
METADATA_KEY = "topformer_d2"
LOGITS, LABELS = "logits", "labels"
BOXES = ("boxes", "scores", "classes")
# Each with the name of a level behind it, such as "class_logits_p3".
CLASS_LOGITS, BOX_DELTAS = "class_logits_", "box_deltas_"


@dataclass(frozen=True)
class BoxDecoding:
    """What makes boxes of a dense detector's raw outputs; levels are finest first.

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
    - "boxes" (n, 4) float32 XYXY, in pixels of the input, not clipped to it, "scores" (n,)
      float32, "classes" (n,) int64: of one image, best first;
    - "class_logits_LEVEL" (N, A K, Hi, Wi) and "box_deltas_LEVEL" (N, A 4, Hi, Wi) for each level,
      finest first, in pixels of the network's input; `decoding` says what makes boxes of them.

    Attributes:
        model: the model's classes, normalisation and sizes.
        outputs: their names, in the graph's order.
        size: (H, W) of the network's input; None = free, any from 1 up.
        batch: N; None = free.
        with_preprocessing: resizing, channel order and normalisation are in the graph.
        decoding: of raw detections; None where the graph has none.
        versions: of what wrote the file, by name.
    """

    model: ModelInfo
    outputs: tuple[str, ...]
    size: tuple[int, int] | None = None
    batch: int | None = 1
    with_preprocessing: bool = False
    decoding: BoxDecoding | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def input_name(self) -> str:
        return "image" if self.with_preprocessing else "images"

    def to_json(self) -> str:
        """For the metadata of an exported file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str, path: str) -> ExportInfo:
        """What to_json wrote into the file `path`.

        Raises:
            InputError: it is something else, or another version's.
        """
        try:
            values = json.loads(text)
            values["model"] = ModelInfo.from_json(json.dumps(values["model"]))
            if values["decoding"] is not None:
                values["decoding"] = BoxDecoding(
                    **{key: as_tuple(value) for key, value in values["decoding"].items()}
                )
            for key in ("outputs", "size"):
                values[key] = as_tuple(values[key])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise InputError(
                f"{path} does not describe its model as this version does: export it again "
                f"with this one ({e})"
            ) from e

    @classmethod
    def from_onnx_metadata(cls, metadata: Mapping[str, str], path: str) -> ExportInfo:
        """Of an ONNX file.

        Args:
            metadata: its metadata_props; ONNX Runtime's
                session.get_modelmeta().custom_metadata_map.
            path: of the file, for the message.

        Raises:
            InputError: the file was not written by tools/export_model.py.
        """
        if METADATA_KEY not in metadata:
            raise InputError(f"{path} does not describe its model: {_MEND}")
        return cls.from_json(metadata[METADATA_KEY], path)

    @classmethod
    def from_openvino(cls, model, path: str) -> ExportInfo:
        """Of an openvino.Model; `path` and errors as from_onnx_metadata has them."""
        if not model.has_rt_info(METADATA_KEY):
            raise InputError(f"{path} does not describe its model: {_MEND}")
        return cls.from_json(model.get_rt_info(METADATA_KEY).astype(str), path)


_MEND = "write it with tools/export_model.py"
