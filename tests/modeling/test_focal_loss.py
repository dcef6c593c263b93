"""The focal loss without one-hot targets equals fvcore's of one-hot targets."""

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss as one_hot_focal_loss
from torch.nn import functional as F

from topformer_d2.modeling import focal_loss
from topformer_d2.modeling.focal_loss import sigmoid_focal_loss


def direct(logits, labels, alpha, gamma):
    counted = labels >= 0
    classes = logits.shape[-1]
    targets = F.one_hot(labels[counted], classes + 1)[:, :-1].to(logits.dtype)
    values = logits[counted]
    # In float64, which fvcore's turns into float32.
    p = values.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(values, targets, reduction="none")
    of_truth = p * targets + (1 - p) * (1 - targets)
    loss = cross_entropy * (1 - of_truth) ** gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.sum()


def draw(classes, share_of_objects, share_of_ignored, dtype=torch.float64):
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(2, 37, classes, generator=generator, dtype=dtype) - 2
    labels = torch.full((2, 37), classes)
    chosen = torch.rand(labels.shape, generator=generator)
    objects = chosen < share_of_objects
    labels[objects] = torch.randint(classes, (int(objects.sum()),), generator=generator)
    labels[chosen > 1 - share_of_ignored] = -1
    return logits.requires_grad_(), labels


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("chunk", [1 << 16, 50])
@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (-1, 2.0), (0.5, 0.0), (0.25, 1.5)])
@pytest.mark.parametrize(
    "classes, share_of_objects, share_of_ignored",
    [(1, 0.3, 0.2), (5, 0.3, 0.2), (80, 0.0, 0.2), (7, 0.2, 0.0), (3, 0.0, 1.0)],
)
def test_value_and_gradient(
    classes, share_of_objects, share_of_ignored, alpha, gamma, chunk, monkeypatch
):
    monkeypatch.setattr(focal_loss, "_CHUNK_OF_CPU", chunk)
    logits, labels = draw(classes, share_of_objects, share_of_ignored)
    found = sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    expected = direct(logits, labels, alpha, gamma)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradient(3 * found, logits), gradient(3 * expected, logits), rtol=1e-10, atol=1e-12
    )


def test_it_is_fvcores_in_float32():
    logits, labels = draw(80, 0.05, 0.1, torch.float32)
    found = sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=2.0)
    counted = labels >= 0
    targets = F.one_hot(labels[counted], 81)[:, :-1].float()
    expected = one_hot_focal_loss(logits[counted], targets, 0.25, 2.0, "sum")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradient(found, logits), gradient(expected, logits), rtol=1e-4, atol=1e-6
    )


def test_large_logits_are_finite():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([1, 2]), alpha=0.25, gamma=2.0)
    assert loss.item() == pytest.approx(0.75 * 200 + 0.25 * 200 + 0.75 * 200)
    assert gradient(loss, logits).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, labels = draw(5, 0.3, 0.2)
    half = logits.detach().to(dtype).requires_grad_()
    found = sigmoid_focal_loss(half, labels, alpha=0.25, gamma=2.0)
    expected = sigmoid_focal_loss(half.float(), labels, alpha=0.25, gamma=2.0)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert gradient(found, half).dtype == dtype


def test_no_second_derivative():
    logits, labels = draw(5, 0.3, 0.2)
    loss = sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=2.0)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)
