"""Checks of results: the loss, the label map, a Predictor and an export beside the CPU's."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import torch

from topformer_d2 import Predictor, label_map
from topformer_d2.data.synthetic import make_textures
from topformer_d2.export import export_model
from topformer_d2.modeling.resized_cross_entropy import resized_cross_entropy

from .report import NotHere, Report, require
from .setting import MODELS, Setting

# Of the largest gradient; of float16 and bfloat16 both sides round the result.
_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def add_results(report: Report, setting: Setting) -> None:
    """A line for each check; those of models read what training wrote."""
    for dtype in _TOLERANCE:
        report.check(f"the loss of {dtype} logits beside the CPU's", partial(_loss, setting, dtype))
    report.check("the loss is the same to the bit each time", partial(_same_loss, setting))
    report.check("the loss does not wait for the GPU", partial(_no_waiting, setting))
    report.check("the label map beside the CPU's", partial(_label_map, setting))
    for kind in MODELS:
        report.check(f"Predictor, {kind}, beside the CPU's", partial(_predictor, setting, kind))
        report.check(f"export, {kind}, of the GPU's checkpoint", partial(_export, setting, kind))
    report.check("ONNX Runtime on the GPU", partial(_onnxruntime, setting))


def make_batch(setting: Setting) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels and weights for the loss, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    classes, side = (5, 8) if setting.is_short else (150, 64)
    logits = 3 * torch.randn(2, classes, side, side, generator=generator)
    labels = torch.randint(0, classes, (2, 8 * side, 8 * side), generator=generator)
    weights = torch.full(labels.shape, 1 / labels.numel())
    weights[:, :side] = 0.0
    return logits, labels, weights


def _loss_and_gradient(device: str, batch: tuple, dtype: torch.dtype) -> tuple:
    logits, labels, weights = (each.to(device) for each in batch)
    logits = logits.to(dtype).requires_grad_()
    loss = resized_cross_entropy(logits, labels, weights)
    loss.backward()
    return loss.detach().cpu(), logits.grad.cpu()


def _loss(setting: Setting, dtype: torch.dtype) -> str:
    batch = make_batch(setting)
    (cpu, expected), (here, found) = (
        _loss_and_gradient(device, batch, dtype) for device in ("cpu", setting.device)
    )
    value = abs(float(here / cpu) - 1)
    off = float((found - expected).abs().max() / expected.abs().max())
    text = f"value differs by {value:.1e}, gradient by {off:.1e} of its largest"
    return require(value <= 1e-5 and off <= _TOLERANCE[dtype], text)


def _same_loss(setting: Setting) -> str:
    batch = make_batch(setting)
    first, second = (_loss_and_gradient(setting.device, batch, torch.float32) for _ in range(2))
    is_same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    return require(is_same, "equal" if is_same else "two calls differ")


def _no_waiting(setting: Setting) -> str:
    if setting.device == "cpu":
        raise NotHere("it takes a GPU")
    logits, labels, weights = (each.cuda() for each in make_batch(setting))
    logits.requires_grad_()
    resized_cross_entropy(logits, labels, weights).backward()  # which makes its tables
    torch.cuda.set_sync_debug_mode("error")
    try:
        resized_cross_entropy(logits, labels, weights).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no synchronisation"


def _label_map(setting: Setting) -> str:
    logits, labels, _ = make_batch(setting)
    size = tuple(labels.shape[1:])
    cpu, here = (
        label_map(logits[0].to(device), size, confidence=True) for device in ("cpu", setting.device)
    )
    differing = int((here[0].cpu() != cpu[0]).sum())
    off = float((here[1].cpu() - cpu[1]).abs().max())
    text = f"{differing} of {cpu[0].numel()} pixels differ; confidence by {off:.1e}"
    return require(differing <= 1e-4 * cpu[0].numel() and off <= 1e-3, text)


def _weights(setting: Setting, kind: str) -> str:
    path = os.path.join(setting.folder, kind, "model_final.pth")
    if not os.path.exists(path):
        raise NotHere("its training has not ended")
    return path


def _predictor(setting: Setting, kind: str) -> str:
    weights, side = _weights(setting, kind), setting.crop
    images = [make_textures(seed, side, side)[0] for seed in range(3)]
    cpu, here = (
        Predictor(setting.config(kind, kind, device=device), weights)(images)
        for device in ("cpu", setting.device)
    )
    if kind == "segmentation":
        same = np.mean([np.mean(a.label == b.label) for a, b in zip(cpu, here, strict=True)])
        return require(same >= 0.995, f"{same:.2%} of the pixels are the same")
    counts = [sum(len(scene.boxes) for scene in scenes) for scenes in (cpu, here)]
    is_right = abs(counts[0] - counts[1]) <= 0.02 * max(counts)
    return require(is_right, f"{counts[0]} boxes on the CPU, {counts[1]} here")


def _export(setting: Setting, kind: str) -> str:
    path = os.path.join(setting.folder, f"{kind}.onnx")
    size = (setting.crop, setting.crop)
    cfg = setting.config(kind, kind)
    export_model(cfg, _weights(setting, kind), path, size=size, raw_boxes=kind == "detection")
    return f"ONNX of {size[0]}x{size[1]}, whose outputs agree with PyTorch's on the CPU"


def _onnxruntime(setting: Setting) -> str:
    import onnxruntime

    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise NotHere(f"the onnxruntime that is installed has no {provider}")
    path = os.path.join(setting.folder, "segmentation.onnx")
    x = np.random.default_rng(0).normal(size=(1, 3, setting.crop, setting.crop))
    found = []
    for providers in (["CPUExecutionProvider"], [provider]):
        session = onnxruntime.InferenceSession(path, providers=providers)
        name = session.get_inputs()[0].name
        found.append(session.run(None, {name: x.astype(np.float32)})[0])
    off = float(np.abs(found[1] - found[0]).max() / np.abs(found[0]).max())
    text = f"differs by {off:.1e} of the largest logit (a Predictor keeps to ONNX Runtime's CPU)"
    return require(off <= 1e-2, text)
