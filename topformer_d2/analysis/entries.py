"""What tools/benchmark.py times: our models by backend, and other libraries' beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis
from torch.nn import functional as F

from ..export import export_model
from ..export.network import ExportNetwork, describe
from ..export.onnx import write_onnx
from ..export.reference import as_listed
from ..inference import Predictor, build_predictor
from ..inference.extras import import_extra
from ..inference.model_info import ModelInfo
from .benchmark import Entry
from .complexity import Network, complexity
from .peers import PEERS, build_peer, peer_onnx

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_FORMATS = {"onnxruntime": ("onnx", ".onnx"), "openvino": ("openvino", ".xml")}


def own_entries(
    name: str,
    cfg,
    weights: str,
    image: np.ndarray,
    *,
    backends: Sequence[str],
    num_threads: int,
    folder: Path,
) -> list[Entry]:
    """Detectron2's DefaultPredictor, then ours by each backend, all at the image's size.

    Args:
        name: of the model, for the table.
        cfg: a config with the toolkit's keys.
        weights: file.
        image: (H, W, 3) uint8 BGR.
        backends: "torch", "onnxruntime", "openvino".
        num_threads: of the network and of what stands around it.
        folder: for exported files.
    """
    size = image.shape[:2]
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.TEST_SIZE_DIVISOR = 0, 1  # the image's own size
    default = build_predictor(cfg, weights)
    segments = hasattr(default.model, "sem_seg_head")
    gmacs = complexity(default.model, *size)[""].macs / 1e9

    def detectron2_way() -> object:
        output = default(image)
        return output["sem_seg"].argmax(0) if segments else output

    entries = [Entry(name, "DefaultPredictor", gmacs, None, detectron2_way)]
    for backend in backends:
        if backend == "torch":
            predictor = Predictor(cfg, weights, num_threads=num_threads)
            network, x = Network(predictor.backend.model), torch.rand(1, 3, *size)
            call = _without_gradients(network, x)
        else:
            file_format, extension = _FORMATS[backend]
            path = str(folder / f"{name}_{size[0]}x{size[1]}{extension}")
            export_model(cfg, weights, path, file_format=file_format, size=size)
            predictor = Predictor(path, backend=backend, num_threads=num_threads)
            call = _bind(predictor.backend.infer, predictor.backend.normalize([image]))
        entries.append(Entry(name, backend, gmacs, call, _bind(predictor, image)))
    return entries


def reference_entry(
    name: str, cfg, weights: str, image: np.ndarray, *, num_threads: int, folder: Path
) -> Entry:
    """The operations that the paper lists, exported as they are, in ONNX Runtime; see as_listed.

    Arguments as own_entries has them.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    size = image.shape[:2]
    model = build_predictor(cfg, weights).model
    info = describe(model, ModelInfo.from_config(cfg), size=size)
    path = folder / f"{name}_{size[0]}x{size[1]}_as_listed.onnx"
    write_onnx(ExportNetwork(as_listed(model), info), info, path)
    predictor = Predictor(str(path), num_threads=num_threads)
    call = _bind(predictor.backend.infer, predictor.backend.normalize([image]))
    gmacs = complexity(model, *size)[""].macs / 1e9
    return Entry(name, "onnxruntime, as listed", gmacs, call, _bind(predictor, image))


def peer_entries(
    image: np.ndarray, *, num_classes: int, num_threads: int, folder: Path
) -> list[Entry]:
    """PEERS in PyTorch and in ONNX Runtime; their whole way resizes all logits for the argmax."""
    onnxruntime = import_extra("onnxruntime")
    size, entries = image.shape[:2], []
    for name in PEERS:
        model, x = build_peer(name, num_classes), torch.rand(1, 3, *size)
        counter = FlopCountAnalysis(model, x)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        gmacs = counter.total() / 1e9
        path = str(folder / f"{name}.onnx")
        peer_onnx(model, size, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run
        calls = {
            "torch": torch.inference_mode()(model.forward),
            "onnxruntime": lambda x, run=run: torch.from_numpy(run(None, {"images": x.numpy()})[0]),
        }
        for backend, call in calls.items():
            whole = _bind(_label_plainly, call, image)
            entries.append(Entry(name, backend, gmacs, _bind(call, x), whole))
    return entries


def _label_plainly(network: Callable, image: np.ndarray) -> torch.Tensor:
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    x = torch.from_numpy(((rgb - _MEAN) / _STD).transpose(2, 0, 1)[None].copy())
    logits = F.interpolate(network(x), size=image.shape[:2], mode="bilinear", align_corners=False)
    return logits[0].argmax(0)


def _bind(function: Callable, *arguments) -> Callable[[], object]:
    return lambda: function(*arguments)


def _without_gradients(network: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return torch.inference_mode()(lambda: network(x))
