"""Trainer, models and heads keep Detectron2's contracts; ours are extensions of them."""

import pytest
import torch
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_train_loader,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F

from topformer_d2 import get_config
from topformer_d2.analysis import complexity
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError
from topformer_d2.export.network import describe
from topformer_d2.inference.model_info import ModelInfo


class Counter(DatasetEvaluator):
    def reset(self):
        self.seen = 0

    def process(self, inputs, outputs):
        self.seen += len(inputs)

    def evaluate(self):
        return {"count": {"images": self.seen}}


class OwnEvaluator(Trainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return Counter()


class StaticEvaluator(Trainer):
    @staticmethod
    def build_evaluator(cfg, dataset_name):
        return Counter()


@pytest.fixture
def unknown_type():
    """A dataset whose evaluator_type only its own Trainer knows."""
    name = "synthetic_of_another_type"
    DatasetCatalog.register(name, lambda: DatasetCatalog.get("synthetic_sem_seg_val"))
    MetadataCatalog.get(name).set(
        evaluator_type="mine",
        stuff_classes=MetadataCatalog.get("synthetic_sem_seg_val").stuff_classes,
    )
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("trainer", [OwnEvaluator, StaticEvaluator])
def test_an_overridden_evaluator_decides(tiny_config, unknown_type, trainer):
    cfg = tiny_config("DATASETS.TEST", f"('{unknown_type}',)", "SOLVER.MAX_ITER", "1")
    run = trainer(cfg)
    run.train()
    assert run._last_eval_results["count"] == {"images": 4}
    with pytest.raises(InputError, match=r"evaluator_type 'mine'.*build_evaluator"):
        Trainer(cfg)


class StockLoader(Trainer):
    """Whole images: larger than the crop."""

    @classmethod
    def build_train_loader(cls, cfg):
        mapper = DatasetMapper(cfg, is_train=True, augmentations=[])
        return build_detection_train_loader(cfg, mapper=mapper, num_workers=0)


@pytest.mark.parametrize("crop", ["[32, 32]", "[64, 64]", "[96, 96]"])
def test_detectron2s_loader_trains_a_segmenter(tiny_config, crop):
    cfg = tiny_config("INPUT.CROP.SIZE", crop, "SOLVER.MAX_ITER", "2")
    run = StockLoader(cfg)
    run.resume_or_load(resume=False)
    run.train()
    assert run.iter == 2 and run._last_eval_results["sem_seg"]["mIoU"] >= 0


@SEM_SEG_HEADS_REGISTRY.register()
class ContractHead(nn.Module):
    """Detectron2's contract and nothing else: logits of the input's size."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        shape = input_shape["sim3"]
        self.stride, self.ignore_value = shape.stride, 255
        self.predict = nn.Conv2d(shape.channels, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 1)

    def forward(self, features, targets=None):
        logits = F.interpolate(self.predict(features["sim3"]), scale_factor=self.stride)
        if self.training:
            return None, {"loss_sem_seg": F.cross_entropy(logits, targets, ignore_index=255)}
        return logits, {}


HEADS = ["ContractHead", "SemSegFPNHead"]
STOCK = ["MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", "8"]


@pytest.mark.parametrize("head", HEADS)
def test_a_segmenter_takes_any_head(tiny_config, head):
    cfg = tiny_config("MODEL.SEM_SEG_HEAD.NAME", head, "SOLVER.MAX_ITER", "2", *STOCK)
    run = Trainer(cfg)
    run.resume_or_load(resume=False)
    run.train()  # the evaluation takes label maps
    assert run._last_eval_results["sem_seg"]["mIoU"] >= 0
    model = run.model.eval()
    x = torch.rand(3, 50, 71) * 255  # no multiple of any stride
    with torch.no_grad():
        (found,) = model([{"image": x, "height": 25, "width": 30}])
        assert found["sem_seg"].shape == (6, 25, 30)
        # As Detectron2: pad after normalisation, then crop what the head gives.
        padded = F.pad((x[None] - model.pixel_mean) / model.pixel_std, (0, 25, 0, 14))
        logits = model.sem_seg_head(model.backbone(padded), None)[0][..., :50, :71]
        (whole,) = model([{"image": x}])
        torch.testing.assert_close(whole["sem_seg"], logits[0], rtol=1e-4, atol=1e-4)
    losses = model.train()([{"image": x, "sem_seg": torch.zeros(50, 71, dtype=torch.long)}] * 2)
    assert torch.isfinite(losses["loss_sem_seg"])


@pytest.mark.parametrize("head", HEADS)
def test_a_joint_model_takes_any_head(head):
    torch.manual_seed(0)
    cfg = get_config(
        "multitask_lite_topformer_t_synthetic",
        ["MODEL.SEM_SEG_HEAD.NAME", head, "MODEL.DEVICE", "cpu", *STOCK],
    )
    model = build_model(cfg).train()
    x = torch.rand(3, 130, 71) * 255
    sample = {"image": x, "sem_seg": torch.zeros(130, 71, dtype=torch.long)}
    sample["instances"] = Instances((130, 71))
    sample["instances"].gt_boxes = Boxes(torch.tensor([[5.0, 5.0, 60.0, 90.0]]))
    sample["instances"].gt_classes = torch.tensor([1])
    with EventStorage():
        losses = model([sample, sample])
    assert {"loss_sem_seg", "loss_cls", "loss_box_reg"} <= losses.keys()
    assert torch.isfinite(losses["loss_sem_seg"])
    with torch.no_grad():
        (found,) = model.eval()([{"image": x, "height": 65, "width": 35}])
    assert found["sem_seg"].shape == (6, 65, 35)
    assert found["instances"].image_size == (65, 35)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "config",
    [
        "seg_topformer_t_synthetic",
        pytest.param("multitask_lite_topformer_t", marks=pytest.mark.slow),
    ],
)
def test_cost_and_export_of_any_head(config, head):
    cfg = get_config(config, ["MODEL.SEM_SEG_HEAD.NAME", head, "MODEL.DEVICE", "cpu", *STOCK])
    model = build_model(cfg).eval()
    found = complexity(model, 50, 71)
    assert found["sem_seg_head"].macs > 0
    assert found["sem_seg_head"].macs == complexity(model, 64, 96)["sem_seg_head"].macs
    info = ModelInfo.from_config(cfg)
    if not hasattr(model.sem_seg_head, "layers"):
        with pytest.raises(InputError, match=f"'{head}' cannot be exported.*layers"):
            describe(model, info)
        return
    with pytest.raises(InputError, match=rf"SEM_SEG_HEAD.NAME.*{head}.*multiples of \d+"):
        describe(model, info)
    assert describe(model, info, size=(64, 64)).size == (64, 64)
