"""Head, loss and meta-architecture: the official protocol's sizes, and no padding."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY, build_model
from torch.nn import functional as F

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.modeling import TopFormerSegmentationHead, pixel_cross_entropy
from topformer_d2.modeling.build import checking_parts
from topformer_d2.modeling.meta_arch.batching import pad_labels, resize_logits

CLASSES = 5


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    cfg = get_config("seg_topformer_t", ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(CLASSES)])
    model = build_model(cfg).eval()
    # An untrained classifier is near 0 everywhere, where wrong sizes would not show.
    torch.nn.init.normal_(model.sem_seg_head.classifier.weight)
    return model.cpu()


def image(height, width, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=g, dtype=torch.uint8)


def test_registered():
    assert "TopFormerSegmentationHead" in SEM_SEG_HEADS_REGISTRY
    assert "TopFormerSegmentor" in META_ARCH_REGISTRY


def test_logits_go_from_stride_8_to_the_input_and_then_to_the_output(model):
    x = image(77, 101)
    with torch.no_grad():
        result = model([{"image": x, "height": 60, "width": 90}])[0]["sem_seg"]
        normalised = (x - model.pixel_mean) / model.pixel_std
        logits = model.sem_seg_head.layers(model.backbone(normalised[None]))
    assert logits.shape == (1, CLASSES, 10, 13)
    logits = F.interpolate(logits, size=(77, 101), mode="bilinear", align_corners=False)
    logits = F.interpolate(logits, size=(60, 90), mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, logits[0])


def test_no_result_depends_on_its_neighbours(model):
    sizes = [(64, 96), (70, 50), (64, 96), (33, 35)]
    inputs = [{"image": image(*size, seed=i)} for i, size in enumerate(sizes)]
    with torch.no_grad():
        together = model(inputs)
        alone = [model([x])[0] for x in inputs]
    for size, a, b in zip(sizes, together, alone, strict=True):
        assert a["sem_seg"].shape == (CLASSES, *size)
        torch.testing.assert_close(a["sem_seg"], b["sem_seg"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 40)], ids=str)
def test_any_size_predicts(model, size):
    with torch.no_grad():
        assert model([{"image": image(*size)}])[0]["sem_seg"].shape == (CLASSES, *size)


def test_training_pads_to_the_crop_after_normalisation(model):
    cfg_crop = (96, 112)
    model.train_size = cfg_crop
    try:
        batch = model._pad_for_training([image(40, 50)])
        labels = pad_labels([torch.ones(40, 50), None], cfg_crop, 255, torch.device("cpu"))
        assert batch.shape == (1, 3, *cfg_crop)
        expected = (image(40, 50) - model.pixel_mean) / model.pixel_std
        torch.testing.assert_close(batch[0, :, :40, :50], expected)
        assert not batch[0, :, 40:].any() and not batch[0, :, :, 50:].any()
        assert labels.dtype == torch.int64 and labels[1].eq(255).all()
        assert labels[0, :40, :50].eq(1).all()
        assert labels[0].eq(255).sum() == 96 * 112 - 40 * 50
        # Another loader's, larger than the crop.
        assert model._pad_for_training([image(100, 50)]).shape == (1, 3, 100, 112)
    finally:
        model.train_size = None


def test_training_step_gives_a_loss_and_gradients():
    cfg = get_config("seg_topformer_t", ["INPUT.CROP.SIZE", "[64, 64]"])
    model = build_model(cfg).train()
    labels = torch.zeros(64, 64, dtype=torch.int64)
    losses = model([{"image": image(64, 64, i), "sem_seg": labels} for i in range(2)])
    assert list(losses) == ["loss_sem_seg"]
    # A classifier near 0 gives each of the 150 classes the same probability.
    assert losses["loss_sem_seg"].item() == pytest.approx(5.01, abs=0.3)
    losses["loss_sem_seg"].backward()
    assert model.backbone.pyramid.stem.weight.grad.abs().sum() > 0


def test_loss_is_summed_over_labelled_and_divided_by_all_pixels():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5)
    targets = torch.randint(0, 3, (2, 13, 17))
    targets[0, :6] = 255
    resized = F.interpolate(logits, size=(13, 17), mode="bilinear", align_corners=False)
    nll = -resized.log_softmax(1)
    labelled = targets != 255
    picked = nll.gather(1, targets.where(labelled, 0)[:, None])[:, 0]
    expected = (picked * labelled).sum() / targets.numel()
    torch.testing.assert_close(pixel_cross_entropy(logits, targets, 255), expected)


def test_a_batch_without_a_label_has_loss_zero():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 32, 32), 255), 255)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_head_sums_resized_inputs_and_drops_whole_channels():
    cfg = get_config("seg_topformer_t")
    shapes = build_model(cfg).backbone.output_shape()
    torch.manual_seed(0)
    head = TopFormerSegmentationHead(shapes, num_classes=4, fuse_depthwise=True).eval()
    assert head.common_stride == 8
    assert head.fuse.groups == 128
    features = {n: torch.randn(1, 128, 8 >> i, 6 >> i) for i, n in enumerate(shapes)}
    total = features["sim3"]
    for name in ("sim4", "sim5"):
        total = total + F.interpolate(
            features[name], size=(8, 6), mode="bilinear", align_corners=False
        )
    torch.testing.assert_close(head.layers(features), head.classifier(head.fuse(total)))
    dropped = head.dropout.train()(torch.ones(1, 1000, 3, 3))
    whole = dropped.flatten(2)
    assert ((whole == 0).all(-1) | (whole > 1).all(-1)).all()
    assert (whole[0, :, 0] == 0).float().mean().item() == pytest.approx(0.1, abs=0.04)


def test_a_dropout_that_is_no_rate_is_named():
    with pytest.raises(InputError, match=r"SEM_SEG_HEAD\.DROPOUT is 2\.0"):
        build_model(get_config("seg_topformer_t", ["MODEL.SEM_SEG_HEAD.DROPOUT", "2.0"]))


def test_unknown_features_are_named():
    with pytest.raises(InputError, match=r"IN_FEATURES.*p4.*sim5"):
        build_model(
            get_config("seg_topformer_t", ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "['sim3','p4']"])
        )


def test_tiny_fuses_depthwise_unless_told_otherwise():
    groups = {
        opts: build_model(get_config(name, list(opts))).sem_seg_head.fuse.groups
        for name, opts in [
            ("seg_topformer_t", ()),
            ("seg_topformer_t", ("MODEL.SEM_SEG_HEAD.FUSE_DEPTHWISE", "False")),
        ]
    }
    assert list(groups.values()) == [128, 1]
    assert build_model(get_config("seg_topformer_b")).sem_seg_head.fuse.groups == 1


@pytest.mark.parametrize("size", [(30, 41), (60, 50)])
def test_logits_are_resized_class_by_class_to_the_same_bits(size):
    logits = torch.randn(19, 8, 10, generator=torch.Generator().manual_seed(0))
    both = logits[None]
    for step in ((60, 50), size):
        both = torch.nn.functional.interpolate(both, step, mode="bilinear", align_corners=False)
    assert torch.equal(resize_logits(logits, (60, 50), size), both[0])


@pytest.mark.parametrize(
    ("widths", "dropout", "named"),
    [((8, 8), 1.0, "DROPOUT is 1.0"), ((8, 16), 0.1, "IN_FEATURES"), ((), 0.1, "IN_FEATURES")],
)
def test_a_head_that_cannot_be_is_named_without_a_config(widths, dropout, named):
    shapes = {f"sim{i}": ShapeSpec(channels=w, stride=2**i) for i, w in enumerate(widths, 3)}
    with pytest.raises(InputError, match=rf"MODEL\.SEM_SEG_HEAD\.{named}"):
        TopFormerSegmentationHead(shapes, num_classes=3, dropout=dropout)


def test_a_fault_of_a_part_is_not_taken_for_a_missing_feature():
    cfg = get_config("det_retinanet_lite_topformer_t")
    with pytest.raises(InputError, match=r"IN_FEATURES names 'p3'"), checking_parts(cfg):
        raise KeyError("p3")
    with pytest.raises(KeyError, match="of a user's part"), checking_parts(cfg):
        raise KeyError("of a user's part")
