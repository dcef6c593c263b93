"""The quality focal loss, computed some logits at a time, equals the formula in autograd."""

import pytest
import torch
from torch.nn import functional as F

from topformer_d2.modeling import focal_loss
from topformer_d2.modeling.focal_loss import quality_focal_loss, sigmoid_quality_loss

BETAS = (2.0, 1.0, 1.5, 3.0, 0.5, 0.0)


def direct(logits, targets, beta):
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return ((targets - logits.sigmoid()).abs() ** beta * entropy).sum()


def dense_targets(labels, qualities, classes):
    """(..., K), and which anchors have a loss."""
    one_hot = F.one_hot(labels.clamp(min=0), classes + 1)[..., :-1]
    return one_hot * qualities[..., None], labels >= 0


def draw(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    x = 3 * torch.randn(shape, generator=generator, dtype=torch.float64) - 1
    y = torch.rand(shape, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), y


def draw_anchors(classes, share_of_objects=0.3, share_of_ignored=0.2):
    logits, _ = draw(2, 37, classes)
    generator = torch.Generator().manual_seed(classes)
    labels = torch.full((2, 37), classes)
    chosen, qualities = torch.rand(2, 2, 37, generator=generator, dtype=torch.float64)
    objects = chosen < share_of_objects
    labels[objects] = torch.randint(classes, (int(objects.sum()),), generator=generator)
    labels[chosen > 1 - share_of_ignored] = -1
    return logits, labels, qualities


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def check_equal(found, expected, logits):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    of_found, of_expected = gradient(3 * found, logits), gradient(3 * expected, logits)
    torch.testing.assert_close(of_found, of_expected, rtol=1e-10, atol=1e-12)


def test_it_is_the_papers():
    x, y = draw(50, 3)
    s = x.sigmoid()
    expected = -((y - s).abs() ** 2 * ((1 - y) * (1 - s).log() + y * s.log())).sum()
    check_equal(quality_focal_loss(x, y, 2.0), expected, x)


@pytest.mark.parametrize("chunk", [1 << 16, 50])
@pytest.mark.parametrize("beta", BETAS)
def test_a_target_for_each_logit(beta, chunk, monkeypatch):
    monkeypatch.setattr(focal_loss, "_CHUNK_OF_CPU", chunk)
    x, y = draw(2, 6, 5, 7)
    check_equal(quality_focal_loss(x, y, beta), direct(x, y, beta), x)
    # A part of a map lies elsewhere in memory than a map of that size.
    wide = F.pad(y.logit(), (0, 2, 0, 1), value=5.0)[..., :5, :7]
    check_equal(quality_focal_loss(x, wide, beta, from_logits=True), direct(x, y, beta), x)


@pytest.mark.parametrize("chunk", [1 << 16, 50])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    "classes, share_of_objects, share_of_ignored",
    [(1, 0.3, 0.2), (5, 0.3, 0.2), (80, 0.0, 0.2), (7, 0.2, 0.0), (3, 0.0, 1.0)],
)
def test_a_quality_for_each_anchor(
    classes, share_of_objects, share_of_ignored, beta, chunk, monkeypatch
):
    monkeypatch.setattr(focal_loss, "_CHUNK_OF_CPU", chunk)
    logits, labels, qualities = draw_anchors(classes, share_of_objects, share_of_ignored)
    found = sigmoid_quality_loss(logits, labels, qualities, beta)
    targets, used = dense_targets(labels, qualities, classes)
    check_equal(found, direct(logits[used], targets[used], beta), logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, labels, qualities = draw_anchors(5)
    half = logits.detach().to(dtype).requires_grad_()
    targets, _ = dense_targets(labels, qualities, 5)
    for loss, args in (
        (quality_focal_loss, (targets, 2.0)),
        (sigmoid_quality_loss, (labels, qualities, 2.0)),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(half, *args)
        assert found.dtype == torch.float32 and torch.equal(found, loss(half.float(), *args))
        assert gradient(found, half).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", BETAS)
def test_extreme_logits_are_finite(beta, dtype):
    x = torch.tensor([200.0, -200, 0, -95, 200, -200, -800], dtype=dtype, requires_grad=True)
    y = torch.tensor([0.0, 1, 0.5, 0, 1, 0, 0.3], dtype=dtype)  # the third is what x says
    loss = quality_focal_loss(x, y, beta)
    assert loss.isfinite() and gradient(loss, x).isfinite().all()
    anchors = x[:, None], torch.zeros(7, dtype=torch.int64), y
    loss = sigmoid_quality_loss(*anchors, beta)
    torch.testing.assert_close(loss, quality_focal_loss(x, y, beta))
    assert gradient(loss, x).isfinite().all()


def test_nothing_gives_zero():
    empty = torch.zeros(0, 4, requires_grad=True)
    nobody = torch.zeros(0, dtype=torch.int64)
    for loss in (
        quality_focal_loss(empty, torch.zeros(0, 4), 2.0),
        sigmoid_quality_loss(empty, nobody, torch.zeros(0), 2.0),
    ):
        assert loss.item() == 0 and gradient(loss, empty).shape == (0, 4)


def test_no_second_derivative_and_targets_are_constants():
    x, y = draw(4, 3)
    loss = quality_focal_loss(x, y.requires_grad_(), 2.0)
    assert torch.autograd.grad(loss, y, retain_graph=True, allow_unused=True) == (None,)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)
