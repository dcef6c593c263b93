"""Models make all tensors on their own device, here "meta", whose tensors have no numbers.

A tensor of the CPU among those of another device is an error, or a copy for which that waits.
"""

import contextlib

import pytest
import torch
from detectron2.modeling import build_model

from topformer_d2 import get_config
from topformer_d2.modeling import adapt
from topformer_d2.modeling.resized_cross_entropy import resized_cross_entropy


def on_meta(config):
    return build_model(get_config(config, ["MODEL.DEVICE", "cpu"])).to("meta")


@pytest.fixture
def without_autocast(monkeypatch):
    """PyTorch has none for "meta"."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def test_the_loss(without_autocast):
    logits = torch.zeros(2, 11, 9, 7, device="meta", requires_grad=True)
    labels = torch.zeros(2, 72, 56, dtype=torch.uint8, device="meta")
    loss = resized_cross_entropy(logits, labels, torch.ones(labels.shape, device="meta"))
    loss.backward()
    assert loss.device.type == logits.grad.device.type == "meta"


def test_a_training_step_of_a_segmenter(without_autocast):
    model = on_meta("seg_topformer_t").train()
    labels = torch.zeros(60, 70, dtype=torch.uint8)
    losses = model([{"image": torch.zeros(3, 60, 70, dtype=torch.uint8), "sem_seg": labels}] * 2)
    sum(losses.values()).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient.device.type == "meta" for gradient in gradients)


@pytest.mark.parametrize(
    "config", ["seg_topformer_t", "det_retinanet_topformer_t", "multitask_lite_topformer_t"]
)
def test_a_network(config):
    model = on_meta(config).eval()
    found = adapt(model).network(torch.zeros(1, 3, 64, 96, device="meta")).tensors()
    assert found and all(tensor.device.type == "meta" for tensor in found)
