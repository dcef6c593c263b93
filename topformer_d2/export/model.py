"""Export of a config's model to a checked file."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from ..checkpoint import SafeCheckpointer
from ..data.image_files import list_images
from ..data.registered import spread_evenly
from ..errors import InputError, look_up
from ..files import check_local_output, check_output, folder_beside, naming_full_disks
from ..inference.backends import FileBackend
from ..inference.export_info import BOXES, ExportInfo
from ..inference.formats import FORMATS, ExportFormat, import_extra
from ..inference.formats.description_file import EXTENSION, check_takes_place
from ..inference.model_info import ModelInfo
from ..modeling import adapt, build_model
from ..tasks import BOXES as BOX_TASK
from .check import check, sample_images
from .compare_int8 import compare_int8
from .differences import Difference
from .network import ExportNetwork, describe
from .quantize import MAX_IMAGES
from .quantize_executorch import Calibration, write_executorch_int8


def export_model(
    cfg: CfgNode,
    weights: str,
    path: str,
    *,
    file_format: str = "onnx",
    size: tuple[int, int] | None = None,
    labels: bool = False,
    raw_boxes: bool = False,
    with_preprocessing: bool = False,
    precision: str = "float32",
    images: str | None = None,
) -> tuple[ExportInfo, list[Difference]]:
    """Write a trained model as a file for another runtime, after a check that its outputs agree.

    Args:
        cfg: a config with the toolkit's keys.
        weights: .pth or .safetensors file.
        path: of the file, with the format's extension; further files may be written beside it.
        file_format: a name of FORMATS, as "onnx".
        size: (height, width) of the network's input; None = free, where the format can.
        labels: for pixels, the label map at the input's size instead of the logits.
        raw_boxes: for objects, what the head gives instead of boxes; a format whose graphs cannot
            decode them gives that in any case.
        with_preprocessing: the input is an image as it is decoded.
        precision: of the weights, "float32", "float16" or "int8"; a format says which it has.
        images: a folder of images to check on; None = synthetic ones. A network in int8 is
            calibrated on up to MAX_IMAGES of them, so they are to be like those that it will see.
            (MNN's int8 is of the weights alone: it is only compared with float32 on them.)

    Returns:
        the description in the file, and the largest differences from PyTorch by output; with boxes
        also those of the head's raw outputs, and none of the boxes where no image has any. No
        differences of a format that is not run on this machine (ExportFormat.not_run). Of int8
        they are from the float32 file, on the images of the calibration (compare_int8).

    Raises:
        InputError: anything of this does not fit, a library is missing, or a difference is above
            what counts as the same (compare, compare_boxes). A file at `path` is then as it was,
            for only what was checked is moved there. (Several files are moved one by one.)
        OSError: it cannot be written, as on a full disk; it names `path`.
    """
    kind = look_up(FORMATS, file_format, "`file_format`")
    _check_abilities(kind, size, labels=labels, with_preprocessing=with_preprocessing)
    _check_precision(kind, precision, images)
    files = list_images(images, "images") if images is not None else []
    target = Path(path)
    if kind.is_folder and target.exists():
        raise InputError(
            f"`path` {target} exists, and a folder is not written over: remove it, or give another "
            "name"
        )
    check_local_output(os.fspath(path), "path", kind.extension)
    _check_files_beside(kind, target)
    for library in kind.libraries:
        import_extra(library, kind.extra)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    if not kind.gives_boxes:
        raw_boxes = raw_boxes or BOX_TASK.name in adapt(model).tasks
    info = describe(
        model,
        ModelInfo.from_config(cfg),
        size=size,
        labels=labels,
        raw_boxes=raw_boxes,
        with_preprocessing=with_preprocessing,
    )
    info = replace(info, precision=precision)
    info.versions.update(_versions(kind))
    SafeCheckpointer(model, require_all=True).load(weights)
    samples = list(sample_images(images))
    differences: dict[str, Difference] = {}
    # Beside the target, to be moved when it is done.
    with folder_beside(target) as folder:
        twin, other = None, folder / "twin"
        if BOXES[0] in info.outputs:
            # The threshold and the NMS can hide a network that is quite another: first without.
            twin = describe(model, info.model, size=size, raw_boxes=True)
        elif precision != "float32":
            # So can the wider limits of rounded weights.
            twin = replace(info, precision="float32")
        if twin is not None:
            other.mkdir()
            found = _write_and_check(model, twin, other / target.name, target, kind, samples)
            differences |= found if precision == "float32" else {}
        calibration = None
        if precision == "int8":
            backend = FileBackend(str(other / target.name), kind.runtime)
            calibration = Calibration(backend, spread_evenly(files, MAX_IMAGES))
        differences |= _write_and_check(
            *(model, info, folder / target.name, target, kind, samples, calibration)
        )
        if twin is not None:
            shutil.rmtree(other)
        for file in sorted(folder.iterdir()):  # the weights of a pair first
            os.replace(file, target.with_name(file.name))
    return info, list(differences.values())


def _check_precision(kind: ExportFormat, precision: str, images: str | None) -> None:
    """InputError where files of a format have no such precision, or no images to make it of."""
    if precision not in kind.precisions:
        reason = kind.not_written.get(precision)
        raise InputError(
            f"`precision` is {precision!r}; `file_format` {kind.name!r} has "
            f"{' and '.join(kind.precisions)}" + (f": {reason}" if reason else "")
        )
    if precision == "int8" and images is None:
        raise InputError(
            "`precision` 'int8' needs `images`, a folder of images like those that the model will "
            f"see, to {'compare it with float32' if kind.rounds_to_int8 else 'calibrate it'} on"
        )


def _check_abilities(
    kind: ExportFormat, size: tuple[int, int] | None, *, labels: bool, with_preprocessing: bool
) -> None:
    """InputError where export_model is asked for what files of a format cannot do."""
    for name, given, can in (
        ("labels", labels, kind.gives_labels),
        ("with_preprocessing", with_preprocessing, kind.takes_images),
    ):
        if given and not can:
            able = [
                each.name
                for each in FORMATS.values()
                if (each.gives_labels if name == "labels" else each.takes_images)
            ]
            raise InputError(
                f"`{name}` does not go with `file_format` {kind.name!r}, whose graphs do not do "
                f"that: leave it out (the Predictor does it), or take one of {able}"
            )
    if kind.fixed_size and size is None:
        raise InputError(
            f"`file_format` {kind.name!r} has files of one fixed size alone: give `size`, the "
            "height and the width of the network's input"
        )


def _check_files_beside(kind: ExportFormat, target: Path) -> None:
    """InputError where a file beside the target cannot be written, or is another model's."""
    for suffix in kind.beside:
        file = target.with_suffix(suffix)
        check_output(str(file), "path")
        if suffix != EXTENSION and file.exists() and not target.exists():
            raise InputError(
                f"`path` {target}: {file.name} is there without {target.name}, and would be "
                "written over: give another name, or remove it"
            )
    for other in FORMATS.values():
        common = {*kind.beside} & {*other.beside}
        if other is not kind and common and target.with_suffix(other.extension).exists():
            raise InputError(
                f"`path` {target}: {target.stem}{min(common)} would be written over, which is of "
                f"{target.stem}{other.extension}; give another name"
            )
    if EXTENSION in kind.beside:
        check_takes_place(target)


def _write_and_check(
    model: nn.Module,
    info: ExportInfo,
    path: Path,
    target: Path,
    kind: ExportFormat,
    images: list[tuple[str, np.ndarray]],
    calibration: Calibration | None = None,
) -> dict[str, Difference]:
    """Write a file to `path`, on its way to `target`: the largest differences by output.

    With `calibration` it is written in int8, and compared with the float32 file on its images.
    """
    # A copy: what makes its graph faster is done to it here, and the model stays for the check.
    network = ExportNetwork(model, info, matrix_resizing=kind.matrix_resizing)
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    try:
        with naming_full_disks(target, path.parent, 2 * size):
            if calibration is None or kind.rounds_to_int8:
                kind.write(network, info, path)
            else:
                write_executorch_int8(network, info, path, calibration.inputs())
            if kind.not_run:
                assert kind.check_structure is not None
                kind.check_structure(network, info, path)
                return {}
            session = kind.session(path)
    except OSError:
        raise
    except Exception as e:  # the libraries' exceptions have no base of their own
        raise InputError(
            f"the network cannot be exported as {kind.name}: {e}; it was not written"
        ) from e
    if calibration is not None:
        return compare_int8(calibration.backend.infer, session.run, calibration.inputs())
    return {found.output: found for found in check(session.run, model, info, images)}


def _versions(kind: ExportFormat) -> dict[str, str]:
    from .. import __version__

    versions = {library: _version(library, kind.extra) for library in kind.libraries}
    return {
        "topformer_d2": __version__,
        "torch": torch.__version__,
        **versions,
        "exporter": kind.exporter,
    }


def _version(library: str, extra: str) -> str:
    """Of a library; some have it in the package's metadata alone."""
    module = import_extra(library, extra)
    return str(getattr(module, "__version__", None) or metadata.version(library))
