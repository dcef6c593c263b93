"""The recipe's rates, decay and groups."""

import pytest
import torch
from detectron2.modeling import build_model

from topformer_d2 import get_config
from topformer_d2.config import config_folder, load_config, schedule_name
from topformer_d2.engine import build_lr_scheduler, build_optimizer
from topformer_d2.engine.solver import WarmupPoly
from topformer_d2.errors import InputError


@pytest.mark.parametrize("i", [0, 1, 2, 749, 1499, 1500, 1501, 80_000, 159_999])
def test_schedule_is_the_recipes(i):
    cfg = get_config("seg_topformer_t")
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=3e-4)
    scheduler = build_lr_scheduler(cfg, optimizer)
    scheduler.last_epoch = i
    warm = min(1.0, i / 1500)
    expected = 3e-4 * (1 - i / 160_000) * (warm + 1e-6 * (1 - warm))
    assert scheduler.get_lr()[0] == pytest.approx(expected, rel=1e-9)


def test_schedule_advances_with_steps():
    cfg = get_config("seg_topformer_t", ["SOLVER.MAX_ITER", "10", "SOLVER.WARMUP_ITERS", "4"])
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [(1 - i / 10) * (min(1, i / 4) + 1e-6 * (1 - min(1, i / 4))) for i in range(10)]
    assert rates == pytest.approx(expected)


def test_groups():
    cfg = get_config("seg_topformer_t")
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.AdamW
    settings = {
        id(p): (group["lr"], group["weight_decay"], group["betas"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(settings) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        rate = 3e-4 if name.startswith("backbone.") else 3e-3
        # The norms' parameters decay too: the official exemption matches none of their names.
        assert settings[id(parameter)] == (pytest.approx(rate), 0.01, (0.9, 0.999)), name


SHIPPED = "seg_topformer_t"
MULTI_STEP, COSINE, POLY = "WarmupMultiStepLR", "WarmupCosineLR", "WarmupPolyLR"


@pytest.mark.parametrize(
    ("solver", "opts", "expected"),
    [
        ("", [], POLY),
        # Files and commands of before there was SOLVER.SCHEDULE.
        (f"SOLVER: {{LR_SCHEDULER_NAME: {POLY}}}", [], POLY),
        (f"SOLVER: {{LR_SCHEDULER_NAME: {MULTI_STEP}}}", [], MULTI_STEP),
        (f"SOLVER: {{LR_SCHEDULER_NAME: {COSINE}}}", [], COSINE),
        ("", ["SOLVER.LR_SCHEDULER_NAME", COSINE], COSINE),
        ("", ["SOLVER.LR_SCHEDULER_NAME", POLY], POLY),
        (f"SOLVER: {{LR_SCHEDULER_NAME: {MULTI_STEP}}}", ["SOLVER.LR_SCHEDULER_NAME", POLY], POLY),
        # A dumped config names both.
        (f"SOLVER: {{LR_SCHEDULER_NAME: {COSINE}, SCHEDULE: {POLY}}}", [], POLY),
        (f"SOLVER: {{LR_SCHEDULER_NAME: {COSINE}, SCHEDULE: ''}}", [], COSINE),
        ("", ["SOLVER.SCHEDULE", ""], COSINE),
    ],
)
def test_the_nearest_that_names_the_schedule_decides(tmp_path, solver, opts, expected):
    between = tmp_path / "between.yaml"
    between.write_text(f"_BASE_: {config_folder() / SHIPPED}.yaml\n{solver}")
    (tmp_path / "own.yaml").write_text("_BASE_: between.yaml\nSOLVER:\n  MAX_ITER: 100\n")
    cfg = load_config(str(tmp_path / "own.yaml"), opts)
    assert schedule_name(cfg) == expected
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    assert isinstance(scheduler._multiplier, WarmupPoly) == (expected == POLY)
    (tmp_path / "dumped.yaml").write_text(cfg.dump())
    assert schedule_name(load_config(str(tmp_path / "dumped.yaml"))) == expected


def test_an_unknown_schedule_is_named():
    cfg = get_config(SHIPPED, ["SOLVER.SCHEDULE", "WarmupPoly"])
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(InputError, match=r"SOLVER\.SCHEDULE is 'WarmupPoly'.*WarmupPolyLR"):
        build_lr_scheduler(cfg, optimizer)


def test_other_optimizers_and_schedules():
    cfg = get_config(
        "seg_topformer_t",
        ["SOLVER.OPTIMIZER", "SGD", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR"],
    )
    optimizer = build_optimizer(cfg, build_model(cfg))
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["momentum"] == 0.9
    build_lr_scheduler(cfg, optimizer)
    cfg.SOLVER.LR_SCHEDULER_NAME = "Foo"
    with pytest.raises(InputError, match="LR_SCHEDULER_NAME 'Foo'"):
        build_lr_scheduler(cfg, optimizer)
    cfg.SOLVER.OPTIMIZER = "LION"
    with pytest.raises(InputError, match=r"SOLVER\.OPTIMIZER is 'LION'.*ADAMW"):
        build_optimizer(cfg, build_model(cfg))


@pytest.mark.parametrize("optimizer", ["SGD", "ADAMW"])
@pytest.mark.parametrize(("kind", "limit"), [("norm", 0.5), ("value", 0.01)])
def test_gradients_are_clipped_by_parameter(optimizer, kind, limit):
    cfg = get_config(
        "seg_topformer_t",
        [
            *("SOLVER.OPTIMIZER", optimizer, "SOLVER.CLIP_GRADIENTS.ENABLED", "True"),
            *("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", kind),
            *("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", str(limit)),
        ],
    )
    model = build_model(cfg)
    stepper = build_optimizer(cfg, model)
    torch.manual_seed(0)
    gradients = {}
    for name, parameter in model.named_parameters():
        parameter.grad = 0.02 * torch.randn_like(parameter)
        gradients[name] = parameter.grad.clone()
    stepper.step()
    # What an optimizer keeps of its first step is the gradient, or a tenth of it.
    key, share = ("momentum_buffer", 1.0) if optimizer == "SGD" else ("exp_avg", 0.1)
    changed = 0
    for name, parameter in model.named_parameters():
        gradient = gradients[name]
        used = stepper.state[parameter][key] / share
        if optimizer == "SGD":  # decay is added to the gradient there
            used = used - 0.01 * (parameter + used * _rate(stepper, parameter)).detach()
        expected = (
            gradient.clamp(-limit, limit)
            if kind == "value"
            else gradient * min(1.0, limit / (gradient.norm().item() + 1e-6))
        )
        torch.testing.assert_close(used, expected, rtol=1e-3, atol=2e-5, msg=name)
        changed += not torch.equal(expected, gradient)
    assert changed > 20


@pytest.mark.parametrize("optimizer", ["SGD", "ADAMW"])
def test_a_weight_may_get_its_first_gradient_after_the_first_update(optimizer):
    cfg = get_config("seg_topformer_t", ["SOLVER.OPTIMIZER", optimizer])
    model = torch.nn.Linear(2, 2)
    stepper = build_optimizer(cfg, torch.nn.Sequential(model))
    before = model.bias.detach().clone()
    model.weight.grad = torch.ones(2, 2)
    stepper.step()
    assert torch.equal(model.bias, before)
    model.bias.grad = torch.ones(2)
    stepper.step()
    assert (model.bias < before).all()


def _rate(optimizer, parameter):
    return next(
        group["lr"]
        for group in optimizer.param_groups
        if any(p is parameter for p in group["params"])
    )


def test_an_unknown_way_to_clip():
    cfg = get_config("seg_topformer_t", ["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norms"])
    build_optimizer(cfg, build_model(cfg))  # nothing is clipped
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    message = r"CLIP_TYPE is 'norms' \(did you mean 'norm'\?\); known: \['value', 'norm'\]"
    with pytest.raises(InputError, match=message):
        build_optimizer(cfg, build_model(cfg))


def test_gradients_are_not_clipped_unless_asked():
    cfg = get_config("seg_topformer_t")
    assert type(build_optimizer(cfg, build_model(cfg))) is torch.optim.AdamW
