"""Names and colours of classes."""

from __future__ import annotations

import colorsys

import numpy as np


def class_styles(metadata, kind: str, num_classes: int) -> tuple[list[str], np.ndarray]:
    """Names and colours of the classes from a dataset's metadata, made up where it has none.

    Args:
        metadata: of a dataset, or an empty dict.
        kind: "stuff" (classes of pixels) or "thing" (classes of boxes).
        num_classes: of the model; a dataset with another number has no names for it.

    Returns:
        num_classes names, and (num_classes, 3) uint8 RGB.
    """
    names = list(metadata.get(f"{kind}_classes") or [])
    colors = list(metadata.get(f"{kind}_colors") or [])
    if len(names) != num_classes:
        names = [f"class {i}" for i in range(num_classes)]
    if len(colors) != num_classes:
        # Hues by the golden ratio, so that neighbours in number differ in colour.
        colors = [
            [
                round(255 * c)
                for c in colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.65, 0.6 + 0.35 * (i % 2))
            ]
            for i in range(num_classes)
        ]
    return names, np.array(colors, np.uint8)
