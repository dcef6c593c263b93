"""The loss without resized logits is the loss of resized logits, in value and gradient."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from topformer_d2.modeling import resized_cross_entropy as module
from topformer_d2.modeling.resized_cross_entropy import resized_cross_entropy


def plain(logits, targets, weights):
    """The loss of resized logits, and its gradient."""
    logits = logits.detach().requires_grad_()
    resized = F.interpolate(logits, targets.shape[1:], mode="bilinear", align_corners=False)
    losses = F.cross_entropy(resized, targets.where(weights != 0, 0).long(), reduction="none")
    loss = (losses * weights).sum()
    loss.backward()
    return loss.detach(), logits.grad


def banded(logits, targets, weights):
    logits = logits.detach().requires_grad_()
    loss = resized_cross_entropy(logits, targets, weights)
    loss.backward()
    return loss.detach(), logits.grad


def draw(seed, dtype=torch.float64, classes=None):
    """Logits, targets and weights of a random size, number of classes and share of ignored."""
    rng = np.random.default_rng(seed)
    size = [1 if rng.random() < 0.1 else int(rng.integers(2, 20)) for _ in range(2)]
    factor = rng.choice([0.4, 1, 2, 3, 4, 8, 16, 2.7, 32], size=2)
    height, width = (max(1, int(a * b)) for a, b in zip(size, factor, strict=True))
    images = int(rng.integers(1, 4))
    classes = classes or int(rng.choice([1, 2, 11, 80, 200]))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, *size, generator=generator, dtype=dtype) * 4
    targets = torch.randint(0, classes, (images, height, width), generator=generator)
    weights = torch.rand(targets.shape, generator=generator, dtype=dtype) / targets.numel()
    weights[torch.rand(targets.shape, generator=generator) < rng.choice([0, 0.3, 1])] = 0
    targets[weights == 0] = 255
    return logits, targets, weights


def assert_equal(found, expected, tolerance, smallest=0.0):
    """Each by its largest value, or by `smallest`: of one class, the gradient is 0."""
    for a, b in zip(found, expected, strict=True):
        scale = max(float(b.abs().max()), smallest)
        assert float((a - b).abs().max()) <= tolerance * scale


@pytest.fixture(params=[None, 700], ids=["whole", "bands"])
def band(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(module, "_numbers_of_band", lambda is_cpu: request.param)


@pytest.mark.parametrize("seed", range(25))
def test_value_and_gradient_are_those_of_resized_logits(seed, band):
    drawn = draw(seed)
    weight = float(drawn[2].max())
    assert_equal(banded(*drawn), plain(*drawn), 1e-10, weight)
    single = [each.float() if each.is_floating_point() else each for each in drawn]
    expected = [each.float() for each in plain(*drawn)]
    assert_equal(banded(*single), expected, 1e-5, weight)


@pytest.mark.parametrize("scale", [30, 300, 3e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_any_range(scale, dtype):
    """Far apart, they cannot be exponentials in a series."""
    logits, targets, weights = draw(3, dtype, classes=11)
    logits = logits * scale
    expected = plain(logits.double(), targets, weights.double())
    assert_equal(banded(logits, targets, weights), expected, 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_have_a_float32_loss(dtype):
    logits, targets, weights = draw(5, torch.float32, classes=11)
    half = logits.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = banded(half, targets, weights)
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    expected = plain(half.float(), targets, weights)
    assert_equal([loss, gradient.float()], expected, 1e-2)
    assert_equal([loss], expected[:1], 1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type(dtype):
    logits, targets, weights = draw(5, classes=11)
    assert_equal(banded(logits, targets.to(dtype), weights), plain(logits, targets, weights), 1e-10)


def test_channels_last_logits():
    logits, targets, weights = draw(7, classes=11)
    last = logits.to(memory_format=torch.channels_last)
    assert_equal(banded(last, targets, weights), plain(logits, targets, weights), 1e-10)


def test_a_factor_scales_the_gradient():
    logits, targets, weights = draw(5, classes=11)
    scaled = logits.requires_grad_()
    (resized_cross_entropy(scaled, targets, weights) * -3).backward()
    torch.testing.assert_close(scaled.grad, -3 * plain(logits, targets, weights)[1])


def test_without_a_gradient_only_the_loss_is_computed(monkeypatch):
    monkeypatch.setattr(module, "_fold_borders", None)  # what a gradient ends with
    drawn = draw(5, classes=11)
    with torch.no_grad():
        loss = resized_cross_entropy(*drawn)
    torch.testing.assert_close(loss, plain(*drawn)[0])


def test_a_second_derivative_is_refused():
    logits, targets, weights = draw(5, classes=11)
    loss = resized_cross_entropy(logits.requires_grad_(), targets, weights)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_small_gradients_survive_in_half_precision_by_the_scale():
    """As GradScaler has it: the loss is multiplied before backward."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 150, 16, 16, generator=generator).half()
    targets = torch.randint(0, 150, (1, 128, 128), generator=generator)
    weights = torch.full(targets.shape, 1 / (8 * 512 * 512))
    scaled = logits.clone().requires_grad_()
    (resized_cross_entropy(scaled, targets, weights) * 65536).backward()
    expected = plain(logits.float(), targets, weights)[1] * 65536
    assert scaled.grad.dtype == torch.float16
    torch.testing.assert_close(scaled.grad.float(), expected, rtol=2e-3, atol=1e-6)


def test_labels_much_smaller_than_the_logits(band):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(1, 20, 64, 64, generator=generator)
    targets = torch.randint(0, 20, (1, 8, 8), generator=generator)
    weights = torch.ones(targets.shape)
    assert_equal(banded(logits, targets, weights), plain(logits, targets, weights), 1e-5)


def test_nan_is_kept():
    logits, targets, weights = draw(5, classes=11)
    weights += 1
    targets[:] = 0
    logits[0, 0, 0, 0] = float("nan")
    loss, gradient = banded(logits, targets, weights)
    assert loss.isnan() and gradient.isnan().any()


def test_tables_of_a_size_are_made_once():
    cpu = torch.device("cpu")
    tables = module.resizing(4, 32, torch.float32, cpu)
    assert tables is module.resizing(4, 32, torch.float32, cpu)
    assert tables is not module.resizing(4, 32, torch.float64, cpu)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(5))
def test_the_way_of_other_devices_gives_the_same(seed, dtype, monkeypatch):
    """Without the geometric series, and with the gradient of the labels slot by slot."""
    drawn = draw(seed, dtype, classes=11)
    expected = plain(*drawn)
    monkeypatch.setattr(module, "_is_on_cpu", lambda _: False)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert_equal(banded(*drawn), expected, tolerance, smallest=1e-9)
