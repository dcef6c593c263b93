"""What several tests need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

REPOSITORY = Path(__file__).resolve().parent.parent
PARITY = Path(__file__).resolve().parent / "parity"
VARIANT_OF = {"t": "tiny", "s": "small", "b": "base"}

# KEY VALUE pairs that train a detector on the synthetic dataset of 64x80 images in seconds.
SMALL_DETECTOR = [
    *("DATASETS.TRAIN", "('synthetic_boxes_train',)"),
    *("DATASETS.TEST", "('synthetic_boxes_val',)", "MODEL.RETINANET.NUM_CLASSES", "5"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "80"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "80"),
    *("INPUT.CROP.SIZE", "[64, 64]", "MODEL.FPN.OUT_CHANNELS", "32"),
    *("SOLVER.IMS_PER_BATCH", "4"),
]


def formula_weight(key: str, shape: list[int]) -> torch.Tensor:
    """The parity data's weight for an official key, the same on any machine."""
    g = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        value = g.uniform(0.5, 1.5, shape)
    elif key.endswith("running_mean"):
        value = 0.1 * g.standard_normal(shape)
    elif len(shape) == 1 and key.endswith("weight"):
        value = g.uniform(0.5, 1.5, shape)
    elif len(shape) == 1:
        value = 0.1 * g.standard_normal(shape)
    else:
        value = g.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def official_state_dict(letter: str) -> dict[str, torch.Tensor]:
    """An official segmentation model's state dict with formula weights; `letter` is t, s or b."""
    keys = json.loads((PARITY / "official_keys.json").read_text())[letter]
    return {key: formula_weight(key, shape) for key, shape in keys.items()}


def formula_image(height: int, width: int) -> torch.Tensor:
    """The parity data's normalised image (1, 3, height, width) float32."""
    g = np.random.Generator(np.random.PCG64(height * 10000 + width))
    return torch.from_numpy(g.standard_normal((1, 3, height, width)).astype(np.float32))


class Segmenter(nn.Module):
    """Backbone and head alone, with a segmentation model's keys: image to logits at stride 8."""

    def __init__(self, variant: str, num_classes: int = 150, fuse_depthwise: bool | None = None):
        super().__init__()
        from topformer_d2.modeling import VARIANTS, TopFormer, TopFormerSegmentationHead

        if fuse_depthwise is None:
            fuse_depthwise = VARIANTS[variant].fuse_depthwise
        self.backbone = TopFormer(variant)
        self.sem_seg_head = TopFormerSegmentationHead(
            self.backbone.output_shape(), num_classes=num_classes, fuse_depthwise=fuse_depthwise
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sem_seg_head.layers(self.backbone(x))


def save_untrained(cfg, path: Path | str) -> str:
    """Weights of an untrained model whose classes all occur and which finds boxes everywhere."""
    from detectron2.modeling import build_model

    from topformer_d2.checkpoint import save_state_dict

    torch.manual_seed(0)
    model = build_model(cfg)
    if hasattr(model, "sem_seg_head"):
        nn.init.normal_(model.sem_seg_head.classifier.weight)
    if hasattr(model, "head"):
        nn.init.normal_(model.head.cls_score.weight, std=50.0)
        nn.init.zeros_(model.head.cls_score.bias)
    save_state_dict(model.state_dict(), str(path))
    return str(path)


def photo(path: Path | str, height: int = 90, width: int = 120, seed: int = 0) -> str:
    """Write an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    return str(path)


def run_tool(
    name: str, *args: str, cwd: Path = REPOSITORY, timeout: float = 240, **environment: str
):
    """Run tools/<name> (or datasets/<name>) as a user would; output is text, nothing is raised."""
    folder = "datasets" if name.startswith("prepare_") else "tools"
    return subprocess.run(
        [sys.executable, str(REPOSITORY / folder / name), *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=timeout,
    )
