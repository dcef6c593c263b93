"""MODEL.FREEZE: parts that are not trained, in every kind of model."""

import pytest
import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.engine.test_resume import options, run
from topformer_d2 import get_config
from topformer_d2.engine import Trainer, build_optimizer, setup_run
from topformer_d2.engine.launch import launch
from topformer_d2.errors import InputError
from topformer_d2.modeling import freeze_parts

STEM = "backbone.pyramid.stem."
PARTS = {
    "stem": (STEM,),
    "extractor": ("backbone.pool.", "backbone.semantics."),
    "backbone": ("backbone.",),
}


def frozen_names(model):
    return {name for name, p in model.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    "parts", [["extractor", "stem"], pytest.param(["backbone"], marks=pytest.mark.slow)]
)
def test_a_part_keeps_its_weights_and_statistics(tiny_config, tmp_path, parts):
    cfg = tiny_config(*options(tmp_path, "5", "run"), "MODEL.FREEZE", str(parts))
    cfg.SOLVER.MAX_ITER = 2
    torch.manual_seed(5)
    trainer = Trainer(cfg)
    model = trainer.model
    starts = tuple(start for part in parts for start in PARTS[part])
    assert frozen_names(model) == {n for n, _ in model.named_parameters() if n.startswith(starts)}
    in_optimizer = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert in_optimizer == trained and len(trained) < len(list(model.parameters()))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainer.train()
    model.eval().train()
    for name, module in model.named_modules():
        assert module.training != f"{name}.".startswith(starts), name
    for key, value in model.state_dict().items():
        if key.startswith(starts):
            assert torch.equal(value, before[key]), key
    assert not torch.equal(
        model.state_dict()["sem_seg_head.classifier.weight"],
        before["sem_seg_head.classifier.weight"],
    )


def test_every_batch_norm_is_frozen(tiny_config):
    model = Trainer.build_model(tiny_config("MODEL.FREEZE", "['bn']")).train()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}
    assert norms and not any(m.training for m in norms.values()) and model.training
    assert frozen_names(model) == {f"{n}.{key}" for n in norms for key in ("weight", "bias")}


@pytest.mark.parametrize(
    ("config", "opts", "part"),
    [
        ("det_retinanet_lite_topformer_t", [], "backbone.bottom_up."),
        ("multitask_lite_topformer_t_synthetic", [], "backbone.bottom_up."),
        ("baseline_lraspp_mobilenetv3_large", [], "backbone."),
    ],
)
def test_the_backbone_is_what_has_pretrained_weights(config, opts, part):
    model = Trainer.build_model(
        get_config(config, ["MODEL.DEVICE", "cpu", "MODEL.FREEZE", "['backbone']", *opts])
    )
    names = [name for name, _ in model.named_parameters()]
    assert frozen_names(model) == {name for name in names if name.startswith(part)}
    assert 0 < len(frozen_names(model)) < len(names)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.FREEZE", "['stemm']"], "'stemm'.*stem.*this model has stem, pyramid, extractor"),
        (
            ["MODEL.FREEZE", "['extractor']", "MODEL.TOPFORMER.SEMANTICS", "none"],
            "'extractor'; this model has stem, pyramid, backbone, bn$",
        ),
    ],
)
def test_a_part_that_the_model_lacks(tiny_config, opts, message):
    with pytest.raises(InputError, match=message):
        Trainer.build_model(tiny_config(*opts))


def test_nothing_left_to_train():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(InputError, match="nothing to train"):
        freeze_parts(model, ["backbone"])


@pytest.mark.parametrize(
    "further", [[], pytest.param(["SOLVER.EMA_DECAY", "0.9"], marks=pytest.mark.slow)]
)
def test_resuming_is_exact(tiny_config, tmp_path, further):
    freeze = ["MODEL.FREEZE", "['pyramid', 'bn']", *further]
    whole, weights = run(tiny_config(*options(tmp_path, "5", "whole"), *freeze))
    first, _ = run(tiny_config(*options(tmp_path, "5", "cut"), *freeze), stop_after=2)
    rest, resumed = run(tiny_config(*options(tmp_path, "5", "cut"), *freeze), resume=True)
    assert first | rest == whole
    assert all(torch.equal(value, resumed[key]) for key, value in weights.items())


def test_another_freeze_is_not_gone_on_from(tiny_config, tmp_path):
    cfg = tiny_config(*options(tmp_path, "5", "run"), "SOLVER.MAX_ITER", "1")
    run(cfg)
    frozen = tiny_config(*options(tmp_path, "5", "run"), "MODEL.FREEZE", "['stem']")
    with pytest.raises(InputError, match=r"another MODEL\.FREEZE"):
        run(frozen, resume=True)


def test_the_checkpoint_is_one_of_an_unfrozen_model(tiny_config):
    plain = Trainer.build_model(tiny_config()).state_dict()
    frozen = Trainer.build_model(tiny_config("MODEL.FREEZE", "['backbone', 'bn']")).state_dict()
    assert [*plain] == [*frozen]


def test_the_optimizer_has_no_frozen_group(tiny_config):
    cfg = tiny_config("MODEL.FREEZE", "['backbone']", "SOLVER.HEAD_LR_FACTOR", "10.0")
    optimizer = build_optimizer(cfg, Trainer.build_model(cfg))
    assert [group["lr"] for group in optimizer.param_groups] == [10 * cfg.SOLVER.BASE_LR]


def train_in_process(cfg, path):
    setup_run(cfg)
    trainer = Trainer(cfg)
    before = trainer.checkpointer.model.backbone.pyramid.stem.weight.clone()
    trainer.train()
    after = trainer.checkpointer.model.backbone.pyramid.stem.weight
    if comm.is_main_process():
        torch.save(torch.equal(before, after), path)


@pytest.mark.slow
def test_several_processes(tiny_config, tmp_path):
    cfg = tiny_config(
        *("MODEL.FREEZE", "['pyramid', 'bn']", "SOLVER.MAX_ITER", "2", "DATASETS.TEST", "()")
    )
    launch(train_in_process, 2, device="cpu", args=(cfg, str(tmp_path / "equal")))
    assert torch.load(tmp_path / "equal")
