"""A description of an exported file in sentences, for users without this package."""

from __future__ import annotations

import json

from .export_info import ExportInfo
from .output_names import BOX_DELTAS, BOXES, CLASS_LOGITS, LABELS, LOGITS


def metadata_json(info: ExportInfo) -> str:
    """What stands in an exported file's metadata: info.to_json() with `explain` inside."""
    values = json.loads(info.to_json())
    if info.format > 1:
        values["explanation"] = explain(info)
    return json.dumps(values)


def explain(info: ExportInfo) -> dict:
    """What `info` says, in sentences.

    Returns:
        "input", "preprocessing" (steps in their order), "outputs" by name, "boxes", and
        "precision" where the weights are not float32.
    """
    model = info.model
    sides = (
        "any height and width" if info.size is None else "height {} and width {}".format(*info.size)
    )
    count = "any number of images" if info.batch is None else f"{info.batch} image(s)"
    order = "red, green, blue" if model.image_format == "RGB" else "blue, green, red"
    if info.size is not None:
        resize = [f"Stretch the image to {sides}, bilinear (OpenCV's INTER_LINEAR)."]
    else:
        resize = []
        if model.short_side:
            resize.append(
                "Resize it, bilinear and with its aspect ratio kept, to the largest size whose "
                f"shorter side is at most {model.short_side} and whose longer side is at most "
                f"{model.long_side}."
            )
        if model.size_divisor > 1:
            resize.append(f"Stretch each side up to a multiple of {model.size_divisor}.")
    steps = [
        "Decode the image to 8-bit values, 0 to 255.",
        *resize,
        f"Order the channels as {order}.",
        f"Normalise each channel: (value - mean) / std, with mean {list(model.pixel_mean)} and std "
        f"{list(model.pixel_std)} in that order.",
        "Put the channels first: (batch, 3, height, width), float32.",
    ]
    if info.with_preprocessing:
        source = (
            "image: uint8 (image_height, image_width, 3), one image of any size as it is decoded, "
            "channels blue, green, red. The graph does all of the preprocessing."
        )
    else:
        source = (
            f"images: float32 (batch, 3, height, width), {count}, {sides}, preprocessed by the "
            "steps below."
        )
    found: dict = {"input": source, "preprocessing": steps, "outputs": _explain_outputs(info)}
    if info.decoding is not None:
        found["boxes"] = _explain_boxes(info)
    if info.precision != "float32":
        found["precision"] = f"The weights are {info.precision}; inputs and outputs are float32."
    return found


def as_text(explanation: dict) -> str:
    """explain()'s sentences, a line each."""
    steps = [f"{i}. {step}" for i, step in enumerate(explanation["preprocessing"], 1)]
    outputs = [f"{name}: {sentence}" for name, sentence in explanation["outputs"].items()]
    boxes = [f"Boxes. {explanation['boxes']}"] if "boxes" in explanation else []
    boxes += [explanation["precision"]] if "precision" in explanation else []
    lines = ["Input", explanation["input"], "Preprocessing", *steps, "Outputs", *outputs, *boxes]
    return "\n".join(lines)


def _explain_outputs(info: ExportInfo) -> dict[str, str]:
    clipped = "clipped" if info.format > 1 else "not clipped"
    frame = "the image" if info.with_preprocessing else "the input"
    sentences = {
        LOGITS: "float32 (batch, classes, height, width) at a lower resolution than the input's. "
        "Resize it bilinearly (align_corners=False) to the input's size; the class of a pixel is "
        "the index of its largest value. Names: model.pixels.names.",
        LABELS: f"integers (batch, height, width) of the size of {frame}: the class of each pixel. "
        "Names: model.pixels.names.",
        BOXES[0]: f"float32 (num_boxes, 4): x0, y0, x1, y1 in pixels of {frame}, from its upper "
        f"left corner, {clipped} to it. Best first. Leave out those without an area, which lie "
        "outside.",
        BOXES[1]: "float32 (num_boxes): of each box, 0 to 1.",
        BOXES[2]: "int64 (num_boxes): the class of each box. Names: model.objects.names.",
    }
    for name in info.outputs:
        if name.startswith(CLASS_LOGITS):
            sentences[name] = (
                "float32 (batch, anchors * classes, height, width) of a level: the logits (before "
                "the sigmoid) of each anchor's classes. Channel = anchor * classes + class."
            )
        elif name.startswith(BOX_DELTAS):
            sentences[name] = (
                "float32 (batch, anchors * 4, height, width) of a level: dx, dy, dw, dh of each "
                "anchor. Channel = anchor * 4 + number."
            )
    return {name: sentences[name] for name in info.outputs}


def _explain_boxes(info: ExportInfo) -> str:
    decoding = info.decoding
    done = (
        "To be done, and boxes then to be clipped to the input"
        if info.has_raw_boxes
        else "Done in the graph"
    )
    return (
        f"{done}: on the levels of strides {list(decoding.strides)} the anchors are "
        "decoding.cell_anchors around ((column + offset) * stride, (row + offset) * stride), with "
        f"offset {decoding.offset}. The deltas are divided by {list(decoding.box_weights)}; then a "
        "box's middle is the anchor's plus dx times its width and dy times its height, and its "
        "sides are the anchor's times exp(dw) and exp(dh), with dw and dh at most "
        f"{decoding.scale_clamp:.6g}. Scores are sigmoids; those above "
        f"{decoding.score_threshold} count, the best {decoding.topk} of each level. Of two boxes "
        f"of one class with an IoU above {decoding.nms_threshold} the worse is dropped (NMS). The "
        f"best {decoding.max_detections} stay. Boxes are clipped to the input at the end."
    )
