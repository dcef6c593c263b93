"""The parts of PixelCrossEntropy against a direct computation with full-size logits."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.modeling import build_model, pixel_cross_entropy
from topformer_d2.modeling.losses import PixelCrossEntropy
from topformer_d2.modeling.losses.regions import cell_counts
from topformer_d2.modeling.losses.selection import near_edges

CLASSES = 5
WEIGHTS = [0.5, 2.0, 0.0, 4.0, 1.25]  # which float32 has exactly
SIZES = [((4, 6), (32, 48)), ((5, 7), (37, 50)), ((1, 3), (5, 20)), ((6, 6), (5, 4))]


def draw(low, full, seed=0, dtype=torch.float64, ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, CLASSES, *low, generator=generator, dtype=dtype)
    targets = torch.randint(0, CLASSES, (2, *full), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < ignored] = 255
    return logits.requires_grad_(), targets


def near(targets, width):
    """By looking at each pixel's neighbours."""
    found = torch.zeros_like(targets, dtype=torch.bool)
    n, height, width_of = targets.shape
    for i, y, x in itertools.product(range(n), range(height), range(width_of)):
        window = targets[i, max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        found[i, y, x] = len(window[window != 255].unique()) > 1
    return found


def direct(logits, targets, options):
    """The loss of pixels, from full-size logits."""
    resized = F.interpolate(logits, targets.shape[1:], mode="bilinear", align_corners=False)
    safe = targets.where(targets != 255, 0)
    labelled = targets != 255
    entropy = F.cross_entropy(resized, safe, reduction="none")
    smoothing = options.get("smoothing", 0.0)
    losses = F.cross_entropy(resized, safe, reduction="none", label_smoothing=smoothing)
    losses = losses * (1 - (-entropy).exp()) ** options.get("focal_gamma", 0.0)
    weights = labelled.to(logits.dtype) / targets.numel()
    if "class_weights" in options:
        weights = weights * torch.tensor(options["class_weights"], dtype=logits.dtype)[safe]
    if "edge_weight" in options:
        weights = weights * torch.where(near(targets, 2), options["edge_weight"], 1.0)
    known = entropy.detach()[labelled].sort(descending=True).values
    cut = -math.inf
    if "hard_share" in options and len(known):
        cut = known[math.ceil(options["hard_share"] * len(known)) - 1]
    if "hard_threshold" in options and len(known):
        least = known[math.ceil(options["hard_minimum"] * len(known)) - 1]
        cut = min(least, -math.log(options["hard_threshold"]))
    return (losses * weights * (entropy.detach() >= cut)).sum()


def loss_and_gradient(loss, logits):
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


OPTIONS = [
    {"class_weights": WEIGHTS},
    {"smoothing": 0.1},
    {"focal_gamma": 2.0},
    {"focal_gamma": 0.5},
    {"smoothing": 0.2, "focal_gamma": 1.5},
    {"hard_share": 0.3},
    {"hard_threshold": 0.01, "hard_minimum": 0.4},
    {"hard_threshold": 0.7, "hard_minimum": 0.1},
    {"edge_weight": 3.0, "edge_width": 2},
    {
        **{"class_weights": WEIGHTS, "smoothing": 0.1, "focal_gamma": 2.0, "hard_share": 0.5},
        **{"edge_weight": 0.25, "edge_width": 2},
    },
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o))
def test_value_and_gradient_are_those_of_resized_logits(options, sizes):
    logits, targets = draw(*sizes)
    found = loss_and_gradient(PixelCrossEntropy(**options).pixel_loss(logits, targets), logits)
    expected = loss_and_gradient(direct(logits, targets, options), logits)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o))
def test_bfloat16_logits_and_batches_without_labels(options):
    logits, targets = draw((4, 6), (32, 48))
    half = logits.detach().bfloat16().requires_grad_()
    loss = PixelCrossEntropy(**options)
    found = loss_and_gradient(loss.pixel_loss(half, targets), half)
    full = half.detach().float().requires_grad_()
    expected = loss_and_gradient(loss.pixel_loss(full, targets), full)
    assert found[0].dtype == torch.float32 and found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1].float(), expected[1], rtol=1e-2, atol=1e-7)
    none = torch.full_like(targets, 255)
    every = PixelCrossEntropy(**options, dice_weight=1.0, lovasz_weight=1.0)
    for value in every(logits, none).values():
        assert value == 0 and not torch.autograd.grad(value, logits)[0].any()


def test_probable_pixels_have_no_infinite_gradient():
    logits, targets = draw((4, 6), (32, 48), dtype=torch.float32)
    sure = (logits.detach() * 1000).requires_grad_()
    for gamma in (0.5, 1.0, 2.0):
        loss = PixelCrossEntropy(smoothing=0.1, focal_gamma=gamma)
        assert loss_and_gradient(loss.pixel_loss(sure, targets), sure)[1].isfinite().all()


def test_without_options_the_loss_is_the_official_one_to_the_bit():
    logits, targets = draw((4, 6), (32, 48), dtype=torch.float32)
    losses = PixelCrossEntropy()(logits, targets)
    assert [*losses] == ["loss_sem_seg"]
    assert torch.equal(losses["loss_sem_seg"], pixel_cross_entropy(logits, targets, 255))
    ones = PixelCrossEntropy(class_weights=[1.0] * CLASSES)(logits, targets)
    torch.testing.assert_close(ones, losses)


@pytest.mark.parametrize("width", [1, 3])
def test_edges_are_where_another_class_is_near(width):
    _, targets = draw((4, 6), (20, 24), ignored=0.5)
    targets[:, :12] = 1
    targets[0, :3, :3] = 255
    assert torch.equal(near_edges(targets, 255, width), near(targets, width))


def test_equal_pixels_are_chosen_together():
    loss = PixelCrossEntropy(hard_share=0.25)
    logits, targets = torch.zeros(1, CLASSES, 2, 2), torch.zeros(1, 16, 16, dtype=torch.int64)
    weights = loss.pixel_weights(logits, targets)
    assert (weights > 0).all()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_cells_count_the_pixels_whose_centres_they_have(sizes):
    logits, targets = draw(*sizes)
    (h, w), (height, width) = sizes
    expected = torch.zeros(2, CLASSES, h, w, dtype=torch.int64)
    for n, y, x in itertools.product(range(2), range(height), range(width)):
        if (label := int(targets[n, y, x])) != 255:
            expected[n, label, int((y + 0.5) * h / height), int((x + 0.5) * w / width)] += 1
    assert torch.equal(cell_counts(targets, logits.shape, 255), expected)


def direct_dice(logits, counts):
    scores, losses = logits.softmax(1), []
    for k in range(CLASSES):
        if counts[:, k].any():
            mass = counts.sum(1).double()
            share = counts[:, k] / mass.clamp(min=1)
            both = (mass * scores[:, k] * share).sum()
            losses.append(
                1 - 2 * both / ((mass * scores[:, k] ** 2).sum() + (mass * share**2).sum())
            )
    return sum(losses) / len(losses)


def direct_lovasz(logits, counts):
    """By the definition: the loss of each set of wrong cells, largest errors first."""
    scores, cells = logits.softmax(1), counts.sum(1) > 0
    labels, losses = counts.argmax(1)[cells], []
    for k in labels.unique():
        truth = labels == k
        errors = (truth.to(logits.dtype) - scores[:, k][cells]).abs()
        loss, wrong, before = 0, torch.zeros_like(truth), 0.0
        for index in errors.argsort(descending=True, stable=True):
            wrong[index] = True
            either = (truth | wrong).sum()
            now = 1 - float((truth & ~wrong).sum() / either)
            loss, before = loss + errors[index] * (now - before), now
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", ["dice", "lovasz"])
def test_regions_are_the_definitions(name, sizes):
    logits, targets = draw(*sizes, ignored=0.6)
    targets[targets == 3] = 1  # a class that the batch has not
    loss = PixelCrossEntropy(weight=0.5, **{f"{name}_weight": 2.0})
    found = loss_and_gradient(loss(logits, targets)[f"loss_{name}"], logits)
    counts = cell_counts(targets, logits.shape, 255)
    expected = {"dice": direct_dice, "lovasz": direct_lovasz}[name](logits, counts)
    # float32 holds the steps of the definition's IoU exactly enough for 1e-6 alone
    tolerance = 1e-10 if name == "dice" else 1e-6
    torch.testing.assert_close(
        found, loss_and_gradient(expected, logits), rtol=tolerance, atol=tolerance
    )


def test_hard_predictions_have_one_minus_iou_as_their_lovasz_loss():
    labels = torch.tensor([[[0, 0, 1, 1], [0, 1, 1, 2]]])
    predicted = torch.tensor([[[0, 1, 1, 1], [0, 1, 2, 2]]])
    logits = 1000.0 * F.one_hot(predicted, CLASSES).movedim(3, 1).double()
    found = PixelCrossEntropy(lovasz_weight=1.0)(logits, labels)["loss_lovasz"]
    ious = [2 / 3, 3 / 5, 1 / 2]
    assert float(found) == pytest.approx(1 - sum(ious) / 3, abs=1e-12)


KEYS = [
    ("SMOOTHING", "0.1"),
    ("FOCAL_GAMMA", "2.0"),
    ("HARD_SHARE", "0.25"),
    ("HARD_THRESHOLD", "0.005"),
    ("EDGE_WEIGHT", "2.0"),
    ("DICE_WEIGHT", "1.0"),
    ("LOVASZ_WEIGHT", "1.0"),
    ("CLASS_WEIGHTS", str([2.0] * 150)),
]


@pytest.mark.parametrize(("key", "value"), KEYS)
def test_each_key_reaches_the_loss(key, value):
    cfg = get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu", f"MODEL.SEM_SEG_LOSS.{key}", value])
    head = build_model(cfg).sem_seg_head
    logits = torch.randn(1, 150, 4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(32 * 32).view(1, 32, 32) // 8 % 150
    plain = pixel_cross_entropy(logits, targets, 255)
    losses = head.losses(logits, targets)
    if key in ("DICE_WEIGHT", "LOVASZ_WEIGHT"):
        assert 0 < losses[f"loss_{key.split('_')[0].lower()}"] <= 1
        assert losses["loss_sem_seg"] == plain
    else:
        assert losses["loss_sem_seg"] != plain
    assert not any("class_weights" in name for name in head.state_dict())


def test_a_weight_is_wanted_for_each_class():
    key = "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS"
    cfg = get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu", key, "[1.0, 2.0]"])
    with pytest.raises(InputError, match=f"{key} has 2 numbers; it takes 150"):
        build_model(cfg)


def test_weights_that_were_not_computed_are_asked_for():
    key = "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM"
    cfg = get_config("seg_topformer_t", ["MODEL.DEVICE", "cpu", key, "inverse_log"])
    head = build_model(cfg).sem_seg_head  # which predicts
    with pytest.raises(InputError, match=f"{key} is 'inverse_log', but CLASS_WEIGHTS is empty"):
        head.losses(torch.zeros(1, 150, 4, 4), torch.zeros(1, 32, 32, dtype=torch.int64))
