"""The rows of `topformer benchmark`: our models by backend, and other libraries' models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor

from ..checkpoint import SafeCheckpointer, save_state_dict
from ..config import model_tasks
from ..export import export_model
from ..export.network import ExportNetwork, describe
from ..export.reference import as_listed
from ..inference import Predictor
from ..inference.backends import FileBackend, TorchBackend, resize_for
from ..inference.export_info import LOGITS
from ..inference.formats import import_extra, of_runtime
from ..inference.formats.onnx import write_onnx
from ..inference.model_info import ModelInfo
from ..inference.threads import threads
from ..modeling import build_model
from ..modeling.layers import resize
from .benchmark import Entry
from .complexity import Network, complexity, count_macs
from .latency import shift_scores
from .peers import PEERS, LabelMap, build_peer, peer_onnx, prepare_peer

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
# Of an untrained detector's boxes in the image: RetinaNet decodes that many of a level, at most.
_CANDIDATES = 1000


def untrained_weights(cfg: CfgNode, image: np.ndarray, path: str) -> None:
    """Write random weights with which a model finds many classes or boxes, as trained ones do.

    Args:
        cfg: a config with the toolkit's keys.
        image: (H, W, 3) uint8 BGR, whose label map has many classes and in which a detector has
            _CANDIDATES boxes above its threshold.
        path: of the .pth file.
    """
    torch.manual_seed(0)
    model = build_model(_on_device(cfg, "cpu")).eval()
    if "sem_seg" in model.tasks:
        for module in model.sem_seg_head.modules():
            if getattr(module, "out_channels", None) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
                torch.nn.init.normal_(module.weight, std=0.1)
    if "instances" in model.tasks:
        ordered = image if cfg.INPUT.FORMAT == "BGR" else image[:, :, ::-1]
        planes = np.ascontiguousarray(ordered.transpose(2, 0, 1))
        shift_scores(model, torch.from_numpy(planes), _CANDIDATES)
    save_state_dict(model.state_dict(), path)


def torch_model(predictor: Predictor) -> torch.nn.Module:
    """The PyTorch model that a Predictor runs."""
    assert isinstance(predictor.backend, TorchBackend)
    return predictor.backend.model


def model_in_use(cfg: CfgNode, weights: str, device: str) -> torch.nn.Module:
    """The model as the Predictor runs it on a device: in inference, BatchNorm folded."""
    return torch_model(Predictor(_on_device(cfg, device), weights))


def own_entries(
    name: str,
    cfg: CfgNode,
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
        backends: "torch", and runtimes of exported files.
        num_threads: of the network and of what stands around it.
        folder: for exported files.
    """
    size = image.shape[:2]
    cfg = _on_device(cfg, "cpu")
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.TEST_SIZE_DIVISOR = 0, 1  # the image's own size
    cfg.MODEL.WEIGHTS = ""  # which it would read as Detectron2 does: a pickle runs its code
    default = DefaultPredictor(cfg)
    SafeCheckpointer(default.model, require_all=True).load(weights)
    segments = "sem_seg" in model_tasks(cfg)
    gmacs = complexity(default.model, *size)[""].macs / 1e9

    def detectron2_way() -> object:
        output = default(image)
        return output["sem_seg"].argmax(0) if segments else output

    whole = _call(num_threads, detectron2_way)
    entries = [Entry(name, "DefaultPredictor", gmacs, None, whole)]
    for backend in backends:
        if backend == "torch":
            predictor = Predictor(cfg, weights, num_threads=num_threads)
            network = _call(num_threads, Network(torch_model(predictor)), torch.rand(1, 3, *size))
            whole = _call(num_threads, predictor, image)
            entries.append(Entry(name, backend, gmacs, network, whole))
            continue
        kind = of_runtime(backend)
        # A name of its own, as files of two formats beside it may have one name.
        path = str(folder / f"{name}_{size[0]}x{size[1]}_{backend}{kind.extension}")
        export_model(cfg, weights, path, file_format=kind.name, size=size)
        predictor = Predictor(path, backend=backend, num_threads=num_threads)
        entries.append(file_entry(name, backend, predictor, image, num_threads, gmacs=gmacs))
    return entries


def check_reference(cfg: CfgNode) -> None:
    """Raise InputError where a config's model has no reference_entry."""
    as_listed(build_model(_on_device(cfg, "cpu")))


def reference_entry(
    name: str, cfg: CfgNode, weights: str, image: np.ndarray, *, num_threads: int, folder: Path
) -> Entry:
    """The operations that the paper lists, exported as they are, in ONNX Runtime; see as_listed.

    Arguments as own_entries has them.
    """
    cfg, size = _on_device(cfg, "cpu"), image.shape[:2]
    model = build_model(cfg).eval()
    SafeCheckpointer(model, require_all=True).load(weights)
    info = describe(model, ModelInfo.from_config(cfg), size=size)
    path = folder / f"{name}_{size[0]}x{size[1]}_as_listed.onnx"
    write_onnx(ExportNetwork(as_listed(model), info), info, path)
    predictor = Predictor(str(path), num_threads=num_threads)
    gmacs = complexity(model, *size)[""].macs / 1e9
    entry = file_entry(name, "onnxruntime, as listed", predictor, image, num_threads, gmacs=gmacs)
    entry.is_reference = True
    return entry


def file_entry(
    name: str,
    backend: str,
    predictor: Predictor,
    image: np.ndarray,
    num_threads: int,
    *,
    gmacs: float | None = None,
) -> Entry:
    """An exported file, open in a Predictor, on an image (H, W, 3) uint8 BGR.

    Args:
        name, backend: for the table.
        num_threads: the Predictor's.
        gmacs: as Entry has it.
    """
    file = predictor.backend
    assert isinstance(file, FileBackend)
    x = file.normalize([resize_for(file, image)])
    network = _call(num_threads, file.infer, x)
    return Entry(name, backend, gmacs, network, _call(num_threads, predictor, image))


def plain_entry(
    name: str, cfg: CfgNode, weights: str, image: np.ndarray, *, num_threads: int, folder: Path
) -> Entry:
    """The network in ONNX Runtime, with the fastest plain label map around it.

    All logits are resized, channels last, which is the layout that PyTorch resizes fastest, and the
    argmax is taken. Beside the Predictor of the same file it shows what label_map saves. Arguments
    as own_entries has them.
    """
    size, path = image.shape[:2], folder / f"{name}_plain.onnx"
    export_model(_on_device(cfg, "cpu"), weights, str(path), size=size)
    backend = Predictor(str(path), num_threads=num_threads).backend
    assert isinstance(backend, FileBackend)

    def whole() -> torch.Tensor:
        outputs = backend.infer(backend.normalize([image]))
        return _argmax(torch.from_numpy(outputs[LOGITS]), size)

    return Entry(name, "onnxruntime, plain argmax", None, None, _call(num_threads, whole))


def peer_entries(
    image: np.ndarray, *, num_classes: int, num_threads: int, folder: Path
) -> list[Entry]:
    """PEERS in PyTorch, prepared as ours are, and in ONNX Runtime.

    The whole way resizes all logits for the argmax: outside the network, and in a second ONNX file
    inside its graph.
    """
    size, entries = image.shape[:2], []
    for name in PEERS:
        model, x = build_peer(name, num_classes), torch.rand(1, 3, *size)
        gmacs = count_macs(model, x).total() / 1e9
        run_logits, run_labels = (
            _onnx_call(each, size, str(folder / f"{name}_{kind}.onnx"), num_threads)
            for kind, each in (("logits", model), ("labels", LabelMap(model).eval()))
        )
        for backend, network in (("torch", prepare_peer(model)), ("onnxruntime", run_logits)):
            whole = _call(num_threads, _label_plainly, network, image)
            entries.append(Entry(name, backend, gmacs, _call(num_threads, network, x), whole))
        whole = _call(num_threads, lambda run=run_labels: run(_normalise(image))[0])
        entries.append(Entry(name, "onnxruntime, argmax in the graph", gmacs, None, whole))
    return entries


def _onnx_call(
    model: torch.nn.Module, size: tuple[int, int], path: str, num_threads: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A peer as an ONNX file in ONNX Runtime."""
    onnxruntime = import_extra("onnxruntime")
    peer_onnx(model, size, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def _label_plainly(network: Callable, image: np.ndarray) -> torch.Tensor:
    """The label map (H, W) of an image (H, W, 3) uint8 BGR, by resizing all logits."""
    return _argmax(network(_normalise(image)), image.shape[:2])


def _normalise(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 BGR to (1, 3, H, W) float32 RGB."""
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return torch.from_numpy(((rgb - _MEAN) / _STD).transpose(2, 0, 1)[None].copy())


def _argmax(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The label map (H, W) of logits (1, K, h, w), all of which are resized."""
    return resize(logits.contiguous(memory_format=torch.channels_last), size)[0].argmax(0)


def _on_device(cfg: CfgNode, device: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    return cfg


def _call(num_threads: int, function: Callable, *arguments: object) -> Callable[[], object]:
    """A call without gradients, and with that many threads in PyTorch and OpenCV."""

    def call() -> object:
        with threads(num_threads), torch.inference_mode():
            return function(*arguments)

    return call
