"""How bad each kind of finding in a dataset is."""

from __future__ import annotations

# An error stops training or evaluation, or makes it wrong without a word. With a warning it runs
# and is right, but the data may not be what was meant.
SEVERITY = {
    "config": "error",
    "dataset": "error",
    "label without image": "error",
    "missing file": "error",
    "unreadable file": "error",
    "16-bit label": "error",
    "1 to 4-bit label": "error",
    "palette label": "error",
    "JPEG label": "error",
    "image is its label": "error",
    "colour label": "error",
    "sizes differ": "error",
    "label out of range": "error",
    "malformed box": "error",
    "class out of range": "error",
    "boxes within 0 to 1": "error",
    "image listed twice": "error",
    "malformed annotation": "error",
    "unknown label": "error",
    "unknown colour": "error",
    "other label values": "error",
    "0/255 masks": "error",
    "one class alone": "error",
    "nothing to learn": "error",
    "image without label": "warning",
    "16-bit colour image": "warning",
    "palette image": "warning",
    "EXIF rotation": "warning",
    "box of no area": "warning",
    "box outside the image": "warning",
    "box reaches out": "warning",
    "some boxes within 0 to 1": "warning",
    "boxes look like corners": "warning",
    "image shows its label": "warning",
    "image in training and test": "warning",
    "listed image missing": "warning",
    "image labelled twice": "warning",
    "duplicate annotation": "warning",
    "annotation not used": "warning",
    "class never seen": "warning",
    "class without an image": "warning",
    "label never seen": "warning",
}


def is_error(kind: str) -> bool:
    """Whether a finding of a kind stops training."""
    return SEVERITY[kind] == "error"
