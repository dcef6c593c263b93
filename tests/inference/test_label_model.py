"""Models that give label maps are evaluated as those that give logits."""

import pytest
import torch
from detectron2.evaluation import SemSegEvaluator, inference_on_dataset
from detectron2.modeling import build_model

from topformer_d2 import get_config
from topformer_d2.data import build_test_loader
from topformer_d2.engine import Trainer
from topformer_d2.evaluation import build_evaluator
from topformer_d2.inference import LabelMapModel

CONFIGS = ["seg_topformer_t_synthetic", "multitask_lite_topformer_t_synthetic"]


def build(name):
    cfg = get_config(name, ["DATALOADER.NUM_WORKERS", "0"])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.nn.init.normal_(model.sem_seg_head.classifier.weight)
    return cfg, model


@pytest.mark.parametrize("name", CONFIGS)
def test_label_maps_and_all_else_of_each_image(name):
    _, model = build(name)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        {"image": torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)}
        for size in ((96, 130), (64, 64), (96, 130))
    ]
    inputs[2] |= {"height": 50, "width": 333}
    with torch.no_grad():
        outputs, expected = LabelMapModel(model)(inputs), model(inputs)
    for output, reference in zip(outputs, expected, strict=True):
        logits = reference.pop("sem_seg")
        chosen = logits.gather(0, output.pop("sem_seg")[None].long())[0]
        assert (logits.amax(0) - chosen).max() < 1e-4
        assert output.keys() == reference.keys()
        for key in output:
            assert torch.equal(output[key].pred_boxes.tensor, reference[key].pred_boxes.tensor)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_trainer_evaluates_by_them(name, training, tmp_path, monkeypatch):
    cfg, model = build(name)
    cfg.OUTPUT_DIR = str(tmp_path)
    dataset = cfg.DATASETS.TEST[0]
    loader = build_test_loader(cfg, dataset)
    expected = inference_on_dataset(model, loader, build_evaluator(cfg, dataset, None))
    model.train(training)
    monkeypatch.setattr(type(model), "forward", None)  # which resizes all logits
    found = Trainer.test(cfg, model)
    assert found["sem_seg"] == pytest.approx(expected["sem_seg"], abs=1e-6, nan_ok=True)
    assert {module.training for module in model.modules()} == {training}


@pytest.mark.parametrize("alone", [False, True])
def test_detectron2s_evaluator_gets_logits(alone, tmp_path):
    cfg, model = build(CONFIGS[0])
    cfg.OUTPUT_DIR = str(tmp_path)
    expected = Trainer.test(cfg, model)
    evaluator = SemSegEvaluator(cfg.DATASETS.TEST[0], distributed=False, output_dir=str(tmp_path))
    found = Trainer.test(cfg, model, evaluator if alone else [evaluator])
    assert found["sem_seg"]["mIoU"] == pytest.approx(expected["sem_seg"]["mIoU"], abs=1e-6)
