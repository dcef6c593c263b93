"""A stopped and resumed run gives the losses and the weights of an uninterrupted one."""

import copy
import os
import re
import shutil
import signal

import pytest
import torch
from detectron2.engine import HookBase

from topformer_d2 import get_config
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.engine import Trainer
from topformer_d2.engine.resuming import warn_of_changes
from topformer_d2.engine.stopping import StopRequested
from topformer_d2.errors import InputError


class Record(HookBase):
    """Keeps the loss of each iteration; sends this process a signal after `stop_after`."""

    def __init__(self, stop_after=None, number=signal.SIGINT):
        self.losses = {}
        self.stop_after = stop_after
        self.number = number

    def after_step(self):
        iteration = self.trainer.iter
        self.losses[iteration] = self.trainer.storage.history("total_loss").latest()
        if iteration == self.stop_after:
            os.kill(os.getpid(), self.number)


def run(cfg, resume=False, **kwargs):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    record = Record(**kwargs)
    # Before the hook that looks for the signal.
    trainer.register_hooks([record])
    trainer._hooks.insert(0, trainer._hooks.pop())
    try:
        trainer.train()
    except StopRequested as e:
        assert e.signal == record.number
    return record.losses, {k: v.clone() for k, v in trainer.model.state_dict().items()}


def options(tmp_path, seed, name):
    """Everything random is on: augmentation, drop path, dropout, shuffling."""
    return [
        *("SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "3", "SEED", seed),
        *("INPUT.COLOR_AUG_SSD", "True", "INPUT.SCALE_RANGE", "[0.8, 1.5]"),
        *("MODEL.TOPFORMER.DROP_PATH_RATE", "0.3", "DATASETS.TEST", "()"),
        *("OUTPUT_DIR", str(tmp_path / name)),
    ]


@pytest.mark.parametrize("seed", ["5", "-1"])
def test_resuming_a_checkpoint_is_exact(tiny_config, plain_run, tmp_path, seed):
    if seed == "5":
        plain_run.copy(tmp_path / "whole")
        whole, weights = plain_run.losses, plain_run.weights
    else:
        whole, weights = run(tiny_config(*options(tmp_path, seed, "whole")))
    assert list(whole) == [0, 1, 2, 3, 4, 5]
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(tmp_path / "whole" / "model_0000002.pth", cut)
    (cut / "last_checkpoint").write_text("model_0000002.pth")
    rest, resumed_weights = run(tiny_config(*options(tmp_path, seed, "cut")), resume=True)
    assert rest == {i: whole[i] for i in (3, 4, 5)}
    assert weights.keys() == resumed_weights.keys()
    assert all(torch.equal(weights[key], resumed_weights[key]) for key in weights)


def test_a_run_of_more_iterations_than_are_asked_for_says_so(
    tiny_config, plain_run, tmp_path, caplog
):
    chosen = options(tmp_path, "5", "run")
    plain_run.copy(tmp_path / "run")
    assert list(run(tiny_config(*chosen, "SOLVER.MAX_ITER", "7"), resume=True)[0]) == [6]
    assert "NOTHING IS TRAINED" not in caplog.text
    assert run(tiny_config(*chosen, "SOLVER.MAX_ITER", "3"), resume=True)[0] == {}
    assert "run has 7 iterations, and SOLVER.MAX_ITER is 3" in caplog.text


def changed_keys(caplog):
    """The keys of the one warning that names them, with their values before and now; {} = none."""
    told = [r.getMessage() for r in caplog.records if "goes on with another config" in r.message]
    assert len(told) < 2
    return {
        key: tuple(value.strip("'") for value in values)
        for text in told
        for key, *values in re.findall(_CHANGE, text)
    }


_CHANGE = r"([A-Z_]+(?:\.\w+)+): (.*?) -> (.*?)(?=; |\. Of |$)"


def test_what_the_config_changes_is_told_once(trained, caplog):
    cfg = trained[0]
    of_training = {
        "SOLVER.BASE_LR": ("0.003", "0.5"),
        "SOLVER.WARMUP_ITERS": ("50", "7"),
        "SOLVER.SCHEDULE": ("WarmupPolyLR", ""),
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": ("1.0", "2.0"),
        "INPUT.CROP.SIZE": ("[32, 32]", "[64, 32]"),
        "INPUT.BLUR.PROB": ("0.0", "0.5"),
        "MODEL.SEM_SEG_HEAD.DROPOUT": ("0.1", "0.2"),
        "MODEL.TOPFORMER.GATE": ("hardsigmoid", "sigmoid"),
    }
    others = ["TEST.EVAL_PERIOD", "7", "SOLVER.MAX_TIME", "1h", "LOGGERS", "[]", "SEED", "77"]
    others += ["INPUT.MIN_SIZE_TEST", "32", "DATALOADER.NUM_WORKERS", "1"]
    trainer = resumed(cfg, others)
    assert changed_keys(caplog) == {}
    changes = [word for key, (_, now) in of_training.items() for word in (key, now)]
    trainer = resumed(cfg, changes)
    assert changed_keys(caplog) == of_training
    rates = [group["initial_lr"] for group in trainer.optimizer.param_groups]
    assert max(rates) < 0.5  # the checkpoint's
    caplog.clear()
    # What it saves has all that it trained with: the new values, and the optimizer's own.
    again = Trainer(trainer.cfg)
    again.load_state_dict(trainer.state_dict())
    assert [*changed_keys(caplog)] == ["SOLVER.BASE_LR"]


def resumed(cfg, changes):
    changed = cfg.clone()
    changed.defrost()
    changed.merge_from_list(changes)
    trainer = Trainer(changed)
    trainer.resume_or_load()
    return trainer


@pytest.mark.parametrize(
    ("earlier", "now", "named"),
    [
        ({"A.NEW": 1}, {}, False),  # another version's
        ({"DATASETS.FOLDERS.a.LIST": "x"}, {}, True),
        ({"DATASETS.FOLDERS.a.IGNORE": []}, {}, False),
        ({"DATASETS.FOLDERS.a.IMAGES": "x"}, {"DATASETS.FOLDERS.a.IMAGES": "y"}, True),
        ({"DATASETS.FOLDERS.a.IMAGES": "x"}, {"DATASETS.FOLDERS.a.IMAGES": "./x/"}, False),
        ({"DATASETS.FOLDERS.a.FORMAT": "x"}, {"DATASETS.FOLDERS.a.FORMAT": "./x"}, True),
        ({"A.B": [1]}, {"A.B": [1]}, False),
        ({"A.B": [1]}, {"A.B": [2]}, True),
    ],
)
def test_a_key_of_another_version_is_no_change(caplog, earlier, now, named):
    warn_of_changes(earlier, now, "out")
    assert [*changed_keys(caplog)] == [*earlier] * named


def test_a_dataset_that_is_not_trained_on_may_change(caplog):
    rest = {"DATASETS.TRAIN": ["a"]}
    keys = [f"DATASETS.FOLDERS.{name}.IMAGES" for name in ("a", "val")]
    warn_of_changes(rest | dict.fromkeys(keys, "x"), rest | dict.fromkeys(keys, "y"), "out")
    assert [*changed_keys(caplog)] == keys[:1]


def test_a_checkpoint_without_its_config_is_gone_on_from(trained, caplog):
    trainer = Trainer(trained[0])
    state = trainer.state_dict()
    del state["config"]
    trainer.load_state_dict(state)
    assert changed_keys(caplog) == {}
    with pytest.raises(InputError, match="its config is damaged"):
        trainer.load_state_dict({**state, "config": 5})


def test_a_run_killed_before_its_last_file_gets_it(tiny_config, plain_run, tmp_path):
    cfg = tiny_config(*options(tmp_path, "5", "run"))
    plain_run.copy(tmp_path / "run")
    folder = tmp_path / "run"
    final, last = folder / "model_final.pth", folder / "model_0000005.pth"
    expected = torch.load(final, weights_only=True)
    final.unlink()
    (folder / "last_checkpoint").write_text(last.name)
    losses, _ = run(cfg, resume=True)
    saved = torch.load(final, weights_only=True)
    assert losses == {} and saved["iteration"] == expected["iteration"] == 5
    assert all(torch.equal(saved["model"][key], expected["model"][key]) for key in saved["model"])


@pytest.mark.parametrize("kind", [pytest.param("", marks=pytest.mark.slow), "lite_"])
def test_resuming_a_detector_keeps_its_loss_normaliser(tiny_detector, tmp_path, kind):
    opts = ["SOLVER.MAX_ITER", "4", "DATASETS.TEST", "()", "OUTPUT_DIR"]
    whole, weights = run(tiny_detector(*opts, str(tmp_path / "whole"), kind=kind))
    cut = tiny_detector(*opts, str(tmp_path / "cut"), kind=kind)
    first, _ = run(cut, stop_after=1)
    rest, resumed_weights = run(cut, resume=True)
    assert list(first) == [0, 1]
    # Two equal runs of the full one's wide convolutions differ in their last bits.
    exact = kind == "lite_"
    assert first | rest == (whole if exact else pytest.approx(whole, rel=1e-4))
    for key, weight in weights.items():
        tolerance = 0 if exact else 1e-4
        torch.testing.assert_close(resumed_weights[key], weight, atol=tolerance, rtol=0)


def test_a_file_that_cannot_be_used_loses_nothing(tiny_config, plain_run, tmp_path, monkeypatch):
    cut = tiny_config(*options(tmp_path, "5", "cut"), "SOLVER.CHECKPOINT_PERIOD", "1000")
    read, calls = TaskMapper.__call__, []

    def fail_in_the_third_batch(self, record):
        calls.append(record)
        if len(calls) == 10:  # batches have 4
            raise InputError("x.png cannot be read")
        return read(self, record)

    monkeypatch.setattr(TaskMapper, "__call__", fail_in_the_third_batch)
    with pytest.raises(InputError, match=r"x\.png"):
        run(cut)
    monkeypatch.undo()
    rest, _ = run(cut, resume=True)
    assert rest == {i: plain_run.losses[i] for i in (2, 3, 4, 5)}


def test_one_seed_decides_everything(tiny_config, tmp_path):
    runs = [run(tiny_config(*options(tmp_path, seed, str(i))))[0] for i, seed in enumerate("112")]
    assert runs[0] == runs[1] != runs[2]


def test_resuming_with_another_model_or_optimizer_is_refused(tiny_config, plain_run, tmp_path):
    plain_run.copy(tmp_path / "run")
    for key, value, message in (
        ("MODEL.TOPFORMER.NUM_HEADS", "2", r"the weights do not fit the config.*attention"),
        ("SOLVER.OPTIMIZER", "SGD", r"another SOLVER\.OPTIMIZER"),
        ("SOLVER.HEAD_LR_FACTOR", "7.0", r"or other rates"),
    ):
        with pytest.raises(InputError, match=message):
            run(tiny_config(*options(tmp_path, "5", "run"), key, value), resume=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config and the content of a checkpoint after its first iteration."""
    small = ["INPUT.CROP.SIZE", "[32, 32]", "SOLVER.IMS_PER_BATCH", "2", "DATASETS.TEST", "()"]
    small += ["DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "1"]
    folder = tmp_path_factory.mktemp("trained")
    cfg = get_config("seg_topformer_t_synthetic", [*small, "OUTPUT_DIR", str(folder)])
    run(cfg)
    return cfg, torch.load(folder / "model_final.pth", weights_only=True)


def test_a_state_without_learning_rate_or_with_a_damaged_seed_is_refused(tiny_config, tmp_path):
    folder = tmp_path / "run"
    run(tiny_config(*options(tmp_path, "5", "run"), "SOLVER.MAX_ITER", "2"))
    content = torch.load(folder / "model_final.pth", weights_only=True)
    hooks = content["trainer"]["hooks"]
    for change, message in (
        ({"LRScheduler": {}}, "no state of the learning rate"),
        ({"SeedEachStep": {"seed": -3}}, "its seed is -3"),
        ({"SeedEachStep": {"other": 1}}, "'seed'"),
        ({"LRScheduler": {"base_lrs": [1.0], "last_epoch": "x"}}, "'last_epoch'"),
    ):
        content["trainer"]["hooks"] = hooks | change
        torch.save(content, folder / "model_final.pth")
        with pytest.raises(InputError, match=rf"checkpoint .*model_final.*{message}"):
            run(tiny_config(*options(tmp_path, "5", "run")), resume=True)


def optimizer_of(content):
    return content["trainer"]["_trainer"]["optimizer"]


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda o: o["state"][0].update(exp_avg=torch.zeros(3)), r"stem\.weight.*\(3,\)"),
        (lambda o: o["state"][0].pop("exp_avg_sq"), "no 'exp_avg_sq'"),
        pytest.param(
            lambda o: o["state"][0].update(exp_avg="x"), "not a tensor", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda o: o["state"][0].update(step=torch.zeros(3)), "'step'", marks=pytest.mark.slow
        ),
        (lambda o: o["state"][0]["exp_avg"].fill_(torch.nan), "NaN"),
        (lambda o: o["state"].pop(0), "had 193"),
        pytest.param(lambda o: o["state"].update({9999: {}}), "9999", marks=pytest.mark.slow),
        (lambda o: o["param_groups"][0].update(betas=(1,)), "'betas'"),
        pytest.param(
            lambda o: o["param_groups"][0].update(weight_decay="x"),
            "'weight_decay'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda o: o["param_groups"][0]["params"].reverse(), "'params'", marks=pytest.mark.slow
        ),
        (lambda o: o.update(param_groups=[5]), "param_groups"),
    ],
)
def test_a_damaged_optimizer_names_its_file_and_another(trained, tmp_path, damage, cause):
    cfg, content = trained
    torch.save(content, tmp_path / "model_0000000.pth")
    content = copy.deepcopy(content)
    damage(optimizer_of(content))
    torch.save(content, tmp_path / "model_0000001.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    cfg.OUTPUT_DIR = str(tmp_path)
    trainer = Trainer(cfg)
    with pytest.raises(InputError, match=rf"model_0000001\.pth .*{cause}.*model_0000000\.pth"):
        trainer.resume_or_load(resume=True)
    (tmp_path / "model_0000000.pth").unlink()
    with pytest.raises(InputError, match=rf"{cause}.*MODEL\.WEIGHTS .*model_0000001\.pth"):
        trainer.resume_or_load(resume=True)


def test_no_iterations(tiny_config):
    with pytest.raises(InputError, match=r"SOLVER\.MAX_ITER is 0"):
        Trainer(tiny_config("SOLVER.MAX_ITER", "0"))


def test_mixed_precision_needs_a_gpu(tiny_config):
    with pytest.raises(InputError, match=r"SOLVER\.AMP\.ENABLED needs a GPU.*cpu"):
        Trainer(tiny_config("SOLVER.AMP.ENABLED", "True"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_iteration_and_loses_nothing(
    tiny_config, plain_run, tmp_path, number
):
    cut = tiny_config(*options(tmp_path, "5", "cut"))
    before = signal.getsignal(number)
    first, _ = run(cut, stop_after=1, number=number)
    rest, _ = run(cut, resume=True)
    assert list(first) == [0, 1] and list(rest) == [2, 3, 4, 5]
    assert first | rest == plain_run.losses
    assert signal.getsignal(number) is before
