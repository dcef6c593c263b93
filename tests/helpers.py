"""What several tests need."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import nn

REPOSITORY = Path(__file__).resolve().parent.parent
PARITY = Path(__file__).resolve().parent / "parity"
VARIANT_OF = {"t": "tiny", "s": "small", "b": "base"}

# Whether Ray Data is here, without the seconds that its import takes.
HAS_RAY = all(map(find_spec, ("ray", "pyarrow")))

# KEY VALUE pairs that train a segmenter on the synthetic dataset of 64x80 images in seconds.
SMALL_SEGMENTER = [
    *("INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0"),
    *("MODEL.DEVICE", "cpu"),  # whose kernels give the same bits each time
]
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


def default_predictor(cfg, weights: str):
    """Detectron2's DefaultPredictor with weights of any kind, resizing as the evaluation does."""
    from detectron2.engine import DefaultPredictor

    from topformer_d2.checkpoint import SafeCheckpointer
    from topformer_d2.data import build_test_augmentation

    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    predictor = DefaultPredictor(cfg)
    SafeCheckpointer(predictor.model, require_all=True).load(weights)
    predictor.aug = build_test_augmentation(cfg)
    return predictor


def photo(path: Path | str, height: int = 90, width: int = 120, seed: int = 0) -> str:
    """Write an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    return str(path)


def write_class_folders(root: Path, names: tuple[str, ...], count: int, seed: int = 0) -> None:
    """`count` images of noise of 40x48 in a folder for each name."""
    for i, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for n in range(count):
            photo(root / name / f"{n}.png", 40, 48, seed + count * i + n)


# Of pytest's process, which its workers (pytest-xdist) have from their environment.
_OF_EXPORTED = "TOPFORMER_D2_TESTS_EXPORTED"
if _OF_EXPORTED not in os.environ:
    _made = tempfile.TemporaryDirectory(prefix="topformer_d2_exported_")  # removed at the end
    os.environ[_OF_EXPORTED] = _made.name


def exported(cfg, weights: str, path: Path | str, **flags: object) -> str:
    """export_model for a test of what is done with a file: each file is made once in a test run.

    Files are the same where the config but for its paths, the weights, the extension and the flags
    are, whether a flag is given or has its default; later ones are copied.
    """
    from topformer_d2.export import export_model
    from topformer_d2.files import waiting_for_lock

    path, cfg = Path(path), cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = cfg.MODEL.WEIGHTS = ""
    parameters = inspect.signature(export_model).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    made = cfg.dump(), sorted((defaults | flags).items()), path.suffix
    digest = hashlib.sha256(repr(made).encode() + Path(weights).read_bytes())
    folder = Path(os.environ[_OF_EXPORTED], digest.hexdigest())
    with waiting_for_lock(folder.with_suffix(".lock")):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as new:
                files = Path(new, "files")
                files.mkdir()
                file = files.joinpath("model").with_suffix(path.suffix)
                export_model(cfg, weights, str(file), **flags)
                files.rename(folder)
    for file in folder.iterdir():
        shutil.copy(file, path.with_suffix(file.suffix))
    return str(path)


class Finished(NamedTuple):
    """What a command left: its exit status and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def topformer(*words: object, cwd: Path = REPOSITORY) -> Finished:
    """Run `topformer WORDS` in this process."""
    from topformer_d2.cli import main  # after the datasets' folder is set

    return _captured(lambda: main([str(word) for word in words]), cwd)


def run_script(name: str | Path, *words: object, cwd: Path = REPOSITORY) -> Finished:
    """Run a script in this process: one of the checkout by its name there, or another's path."""

    def call() -> int:
        before = sys.argv, torch.get_num_threads()
        sys.argv = [str(name), *map(str, words)]
        try:
            runpy.run_path(str(REPOSITORY / name), run_name="__main__")
        finally:
            sys.argv = before[0]
            torch.set_num_threads(before[1])
        return 0

    return _captured(call, cwd)


def _captured(call: Callable[[], int], folder: Path) -> Finished:
    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = call()
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        os.chdir(before)
    return Finished(status, out.getvalue(), err.getvalue())


def start_topformer(*words: object, timeout: float = 900, **environment: str):
    """Run `topformer WORDS` in a process of its own, as a user would; nothing is raised."""
    return subprocess.run(
        [sys.executable, "-m", "topformer_d2", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        timeout=timeout,
    )


def start_training(command: list[str]) -> subprocess.Popen:
    """Start a training as a user would, in a session of its own; it has done 20 iterations.

    Its output, standard error's too, is left to be read from there on.
    """
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    for line in process.stdout:
        if "iter: 19" in line:
            break
    return process


@contextlib.contextmanager
def datasets_below(root: Path | str) -> Iterator[None]:
    """Within it the synthetic datasets are those of another DETECTRON2_DATASETS."""
    from topformer_d2.data.builtin import datasets_root

    before = datasets_root()
    _register_synthetic(str(root))
    try:
        yield
    finally:
        _register_synthetic(before)


def _register_synthetic(root: str) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from topformer_d2.data import builtin

    objects, pixels = builtin.SYNTHETIC_OBJECTS, builtin.SYNTHETIC_CATEGORIES
    for kind, *categories in (
        ("sem_seg", None, pixels),
        ("boxes", objects, None),
        ("multitask", objects, pixels),
    ):
        for split in ("train", "val"):
            name = f"synthetic_{kind}_{split}"
            for catalog in (DatasetCatalog, MetadataCatalog):
                catalog.remove(name)
            builtin._register(name, builtin._SYNTHETIC, root, split, *categories)
