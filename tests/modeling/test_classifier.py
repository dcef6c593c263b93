"""The classifier that the others are pretrained as."""

import math

import pytest
import torch
from torch.nn import functional as F

from topformer_d2 import Predictor, get_config
from topformer_d2.checkpoint import SafeCheckpointer, save_state_dict
from topformer_d2.errors import InputError
from topformer_d2.export import export_model
from topformer_d2.modeling import TopFormer, TopFormerTrunk, build_model, freeze_parts

CPU = ["MODEL.DEVICE", "cpu"]
SMALL = [*CPU, "MODEL.RETINANET.NUM_CLASSES", "5", "MODEL.FPN.OUT_CHANNELS", "32"]
SMALL += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6"]


def classifier(*opts):
    torch.manual_seed(0)
    return build_model(get_config("cls_topformer_t", [*CPU, *opts]))


def samples(count, side=64):
    torch.manual_seed(1)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    return [{"image": image, "cls": i % 3} for i, image in enumerate(images)]


@pytest.mark.parametrize(
    ("letter", "channels", "parameters"),
    # Those of the published ImageNet models: 1.5, 3.1 and 5.1 million.
    [("t", 208, 1_503_304), ("s", 296, 3_105_928), ("b", 384, 5_068_872)],
)
def test_sizes(letter, channels, parameters):
    model = build_model(get_config(f"cls_topformer_{letter}", CPU)).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    with torch.no_grad():
        feature = model.backbone(torch.rand(2, 3, 224, 224))["semantics"]
        raw = model.network(torch.rand(2, 3, 224, 224))
    assert feature.shape == (2, channels, 7, 7)
    assert raw.logits.shape == (2, 1000) and len(raw.tensors()) == 1


def test_logits_are_of_pooled_normalised_features():
    model = classifier("MODEL.CLS_HEAD.NUM_CLASSES", "4").eval()
    for buffer in (model.cls_head.norm.running_mean, model.cls_head.norm.running_var):
        buffer.uniform_(0.5, 1.5)
    (first, second) = samples(2)
    with torch.no_grad():
        outputs = model([first, second])
        mean, std = (
            torch.tensor(v).view(3, 1, 1)
            for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
        )
        pooled = model.backbone(((second["image"] - mean) / std)[None])["semantics"].mean((2, 3))
        norm, linear = model.cls_head.norm, model.cls_head.linear
        pooled = (pooled - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        expected = pooled @ linear.weight.T + linear.bias
    torch.testing.assert_close(outputs[1]["cls"], expected[0], rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_smoothed_cross_entropy():
    model = classifier("MODEL.CLS_HEAD.NUM_CLASSES", "4", "MODEL.TOPFORMER.DROP_PATH_RATE", "0.0")
    batch = samples(3)
    loss = model(batch)["loss_cls"]
    logits = model.network(model._batch(batch)).logits
    truth = 0.9 * F.one_hot(torch.tensor([0, 1, 2]), 4) + 0.1 / 4
    expected = -(truth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["MIXUP_ALPHA", "CUTMIX_ALPHA"])
def test_mixing_keeps_the_shares_of_pixels_and_classes_the_same(key):
    model = classifier("MODEL.CLS_HEAD.NUM_CLASSES", "2", f"INPUT.CLS.{key}", "1.0")
    images = torch.stack([torch.zeros(3, 50, 50), torch.ones(3, 50, 50)])
    shares = []
    for seed in range(5):
        torch.manual_seed(seed)
        mixed, truth = model.mixing(images, torch.tensor([0, 1]))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), truth[:, 1], rtol=0, atol=1e-5)
        torch.testing.assert_close(truth.sum(1), torch.ones(2))
        shares.append(truth[1, 1].item())
    assert len(set(shares)) > 3
    assert model.eval()([{"image": image} for image in images])  # nothing is mixed in inference


def test_its_checkpoint_starts_every_other_model(tmp_path, caplog):
    model = classifier()
    path = str(tmp_path / "cls.pth")
    save_state_dict(model.state_dict(), path)
    for name in ("seg_topformer_t", "det_retinanet_lite_topformer_t", "multitask_topformer_t"):
        caplog.clear()
        other = build_model(get_config(name, SMALL))
        SafeCheckpointer(other).load(path)
        backbone = getattr(other.backbone, "bottom_up", other.backbone)
        assert isinstance(backbone, TopFormer)
        own = backbone.state_dict()
        given = {k.removeprefix("backbone."): v for k, v in model.state_dict().items()}
        shared = [key for key in own if not key.startswith("injection.")]
        assert [key for key in shared if not torch.equal(own[key], given[key])] == []
        assert "are not in the weights file" in caplog.text


def test_a_backbone_without_semantics_is_refused():
    with pytest.raises(InputError, match=r"'semantics'.*MODEL\.BACKBONE\.NAME.*topformer_trunk"):
        classifier("MODEL.BACKBONE.NAME", "build_topformer_backbone")


def test_a_batch_of_one_image_is_refused():
    with pytest.raises(InputError, match=r"one image.*SOLVER\.IMS_PER_BATCH"):
        classifier()(samples(1, side=256))


def test_parts_can_be_frozen():
    model = freeze_parts(classifier(), ["pyramid", "extractor"])
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"cls_head"}


def test_it_neither_predicts_nor_is_exported(tmp_path):
    cfg = get_config("cls_topformer_t", CPU)
    path = str(tmp_path / "cls.pth")
    save_state_dict(classifier().state_dict(), path)
    for call in (
        lambda: Predictor(cfg, path),
        lambda: export_model(cfg, path, str(tmp_path / "cls.onnx")),
    ):
        with pytest.raises(InputError, match=r"TopFormerClassifier.*pretraining.*MODEL\.WEIGHTS"):
            call()


def test_the_trunk_computes_what_topformer_injects():
    torch.manual_seed(0)
    whole, trunk = TopFormer("tiny").eval(), TopFormerTrunk("tiny").eval()
    trunk.load_state_dict(whole.state_dict(), strict=False)
    x = torch.rand(1, 3, 100, 130)
    with torch.no_grad():
        semantics = trunk(x)["semantics"]
        assert torch.equal(semantics, whole.extract(x)[1])
    shape = trunk.output_shape()["semantics"]
    assert semantics.shape == (1, shape.channels, math.ceil(100 / shape.stride), 3)
