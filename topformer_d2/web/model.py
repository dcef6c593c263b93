"""The ONNX file that a page runs."""

from __future__ import annotations

from pathlib import Path

from ..config import find_config, model_tasks
from ..errors import InputError
from ..export import export_model
from ..inference.export_info import LABELS, ExportInfo
from ..inference.formats import FORMATS
from ..tasks import BOXES


def model_for_web(model: str, weights: str | None, folder: Path) -> tuple[Path, ExportInfo]:
    """An ONNX file that the page can run, which is written to `folder` where there is none yet.

    Args:
        model: .onnx file of `topformer export` or `topformer quantize`, the name of a model that
            comes with the package, or a config's name or .yaml file.
        weights: of a config, .pth or .safetensors; None = those that it names.
        folder: for the file; it exists.

    Returns:
        the path of the file, and what it says of itself.

    Raises:
        InputError: there is no such model, it cannot be read or exported, or the page cannot run
            it: it resizes images itself, ends in a label map, or takes several images at a time.
    """
    if Path(model).suffix.lower() == ".onnx":
        if weights is not None:
            raise InputError(f"{model} has its weights inside: leave `weights` {weights} out")
        path = Path(model)
        info = FORMATS["onnx"].session(path).export
        _check(info, model)
        return path, info
    cfg = find_config(model)
    if weights is None and not cfg.MODEL.WEIGHTS:
        raise InputError(f"{model} names no weights: give them as `weights`")
    path = folder / "model.onnx"
    # The page makes boxes of what the head gives: in less time than the graph does.
    has_boxes = BOXES.name in model_tasks(cfg)
    info, _ = export_model(cfg, weights or cfg.MODEL.WEIGHTS, str(path), raw_boxes=has_boxes)
    return path, info


def _check(info: ExportInfo, path: str) -> None:
    """InputError where the page cannot run a file with this description."""
    if info.with_preprocessing:
        raise InputError(
            f"{path} resizes images itself, which the page does: export it again without "
            "--with-preprocessing"
        )
    if LABELS in info.outputs:
        raise InputError(
            f"{path} ends in a label map, which the page makes of logits: export it again without "
            "--labels"
        )
    if info.batch not in (None, 1):
        raise InputError(f"{path} takes {info.batch} images at a time, and the page gives it one")
