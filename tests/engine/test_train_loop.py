"""A training step: losses that are read later, the fused optimizer, the layout of a batch."""

import copy
import math

import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.engine.test_resume import options
from topformer_d2.checkpoint import read_state_dict
from topformer_d2.engine import Trainer, train_loop
from topformer_d2.engine.failures import UndoStep
from topformer_d2.engine.stopping import StopRequested
from topformer_d2.errors import InputError
from topformer_d2.modeling.meta_arch.batching import pad_labels


class Model(torch.nn.Module):
    """Its loss in call n is n, or NaN in call `bad`."""

    def __init__(self, bad=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.calls, self.bad = 0, bad

    def forward(self, _):
        self.calls += 1
        value = math.nan if self.calls == self.bad else float(self.calls)
        return {"loss_a": self.weight * 0 + value, "loss_b": self.weight * 0 + 1}


def make_loop(model, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = train_loop.AccumulatingTrainer(model, [[{}]] * 50, optimizer, num_parts=1, **kwargs)
    loop.read_period = 4  # as on a GPU
    return loop


def iterate(loop, storage, count):
    for _ in range(count):
        loop.run_step()
        storage.step()


def test_losses_read_later_are_logged_under_their_own_iterations():
    with EventStorage() as storage:
        loop = make_loop(Model(), max_iter=10)
        iterate(loop, storage, 3)
        assert not storage.histories()
        iterate(loop, storage, 7)
        assert storage.iter == 10
    assert storage.history("loss_a").values() == [(float(i + 1), i) for i in range(10)]
    assert storage.history("total_loss").values() == [(float(i + 2), i) for i in range(10)]


def test_a_loss_that_is_not_finite_is_found_where_it_is_read_or_saved():
    with EventStorage() as storage:
        loop = make_loop(Model(bad=2))
        iterate(loop, storage, 1)
        assert "optimizer" in loop.state_dict()
        iterate(loop, storage, 2)
        with pytest.raises(FloatingPointError, match="infinite or NaN"):
            loop.state_dict()
        with pytest.raises(FloatingPointError, match="iteration=1!"):
            loop.run_step()
        assert storage.iter == 3


def test_losses_are_read_before_what_needs_them():
    with EventStorage() as storage:
        loop = make_loop(Model(), read_before=(0, 3))
        seen = []
        for _ in range(9):
            iterate(loop, storage, 1)
            seen.append(len(storage.histories() and storage.history("loss_a").values()))
        assert seen == [0, 0, 3, 4, 4, 6, 6, 8, 9]
        iterate(loop, storage, 1)
        loop.read_losses()
        assert len(storage.history("loss_a").values()) == 10
        loop.read_losses()  # of none
        assert len(storage.history("loss_a").values()) == 10


def test_both_iterations_are_the_loss_s_while_it_is_logged(monkeypatch):
    """Detectron2's main branch logs under the loop's, v0.6 under the storage's."""
    seen = []
    with EventStorage() as storage:
        loop = make_loop(Model(), max_iter=3)
        monkeypatch.setattr(
            loop, "_write_metrics", lambda *_: seen.append((loop.iter, storage.iter))
        )
        for iteration in range(3):
            loop.iter = iteration
            iterate(loop, storage, 1)
    assert seen == [(0, 0), (1, 1), (2, 2)]
    assert loop.iter == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_is_not_finite_is_not_saved(value):
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    loop = make_loop(model)
    model.register_buffer("mask", torch.tensor(-math.inf))
    assert "optimizer" in loop.state_dict()
    part = model[0].running_var if math.isnan(value) else model[0].weight
    part.data[1] = value
    with pytest.raises(FloatingPointError, match="infinite or NaN"):
        loop.state_dict()


def test_a_model_that_was_not_finite_before_the_iteration_cannot_be_gone_back_to():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    undo = UndoStep(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for value, can_be_undone in ((1.0, True), (math.nan, False)):
        model[0].running_var.fill_(value)
        undo.before_step()
        model[0].running_var.fill_(math.nan)
        assert undo.undo() == can_be_undone


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Losses are read every 20 iterations."""
    build = train_loop.AccumulatingTrainer.__init__

    def build_as_on_a_gpu(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.read_period = train_loop.READ_PERIOD

    monkeypatch.setattr(train_loop.AccumulatingTrainer, "__init__", build_as_on_a_gpu)


def spoil(monkeypatch, bad):
    """Let the segmentor's loss be NaN in the calls that `bad` names, from 1 on."""
    from topformer_d2.modeling import TopFormerSegmentor

    forward, calls = TopFormerSegmentor.forward, []

    def spoiled(self, batch):
        calls.append(1)
        factor = math.nan if len(calls) in bad else 1.0
        return {k: v * factor for k, v in forward(self, batch).items()}

    monkeypatch.setattr(TopFormerSegmentor, "forward", spoiled)


@pytest.mark.parametrize("period", ["SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD"])
def test_nothing_is_saved_or_evaluated_after_a_loss_that_is_not_finite(
    tiny_config, tmp_path, monkeypatch, as_on_a_gpu, period
):
    """As in mixed precision: the update is skipped, and BatchNorm's statistics have NaN."""
    spoil(monkeypatch, bad=[2])
    monkeypatch.setattr(Trainer, "test", classmethod(lambda *_: pytest.fail("evaluated")))
    never = ("SOLVER.CHECKPOINT_PERIOD", "100")
    trainer = Trainer(tiny_config(*options(tmp_path, "5", "out"), *never, period, "3"))
    statistics = next(trainer.model.buffers())
    monkeypatch.setattr(trainer.optimizer, "step", lambda: statistics.fill_(math.nan))
    with pytest.raises(InputError, match=r"not finite in iteration 1 .*no checkpoint yet"):
        trainer.train()
    assert not list((tmp_path / "out").glob("*.pth"))


def test_an_earlier_loss_that_is_not_finite_leaves_the_last_checkpoint(
    tiny_config, tmp_path, monkeypatch, as_on_a_gpu
):
    """The model is finite all the time."""
    spoil(monkeypatch, bad=[4])
    cfg = tiny_config(*options(tmp_path, "6", "out"), "SOLVER.CHECKPOINT_PERIOD", "3")
    trainer = Trainer(cfg)
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    with pytest.raises(InputError, match=r"not finite in iteration 3 .*from .*model_0000002\.pth"):
        trainer.train()
    assert [p.name for p in (tmp_path / "out").glob("*.pth")] == ["model_0000002.pth"]


def test_a_training_that_is_stopped_logs_its_last_losses(tiny_config, tmp_path, as_on_a_gpu):
    cfg = tiny_config(*options(tmp_path, "6", "out"))
    trainer = Trainer(cfg)
    stop = trainer._hooks[-1]
    stop._received = 2
    with pytest.raises(StopRequested):
        trainer.train()
    assert "total_loss" in (tmp_path / "out" / "metrics.json").read_text()


@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_a_state_of_another_implementation_is_gone_on_from(tiny_config, name):
    """As of an older checkpoint: the same weights follow but for their last bits."""
    trainer = Trainer(tiny_config("SOLVER.OPTIMIZER", name, "SEED", "1"))
    with EventStorage():
        trainer.run_step()
    state = copy.deepcopy(trainer.optimizer.state_dict())
    own = True if name == "ADAMW" else None
    other = None if own else True  # there was a version with a fused SGD
    assert all(group["fused"] is own for group in state["param_groups"])
    for group in state["param_groups"]:
        group["fused"] = other
    weights = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    found = []
    for fused in (own, other):
        trainer.model.load_state_dict(weights)
        trainer.optimizer.load_state_dict(copy.deepcopy(state))
        assert all(group["fused"] is own for group in trainer.optimizer.param_groups)
        for group in trainer.optimizer.param_groups:
            group["fused"] = fused
        for i, parameter in enumerate(trainer.model.parameters()):
            generator = torch.Generator().manual_seed(i)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        trainer.optimizer.step()
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clips", [False, True])
def test_the_scale_of_mixed_precision_is_off_before_gradients_are_clipped(tiny_config, clips):
    cfg = tiny_config("SOLVER.CLIP_GRADIENTS.ENABLED", str(clips))
    optimizer = Trainer(cfg).optimizer
    assert getattr(optimizer, "_step_supports_amp_scaling", False) is not clips


def test_a_training_batch_is_channels_last_and_checkpoints_are_not(tiny_config, tmp_path):
    cfg = tiny_config(*options(tmp_path, "2", "out"))
    trainer = Trainer(cfg)
    seen = []
    trainer.model.sem_seg_head.classifier.register_forward_hook(
        lambda _module, _args, logits: seen.append(
            logits.is_contiguous(memory_format=torch.channels_last)
        )
    )
    trainer.train()
    assert seen == [True] * 6
    saved = read_state_dict(str(tmp_path / "out" / "model_final.pth"))["model"]
    assert all(value.is_contiguous() for value in saved.values())
    state = trainer.optimizer.state_dict()["state"].values()
    assert all(value["exp_avg"].is_contiguous() for value in state)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_labels_are_padded_with_what_is_ignored(dtype):
    labels = [torch.ones(1, 2, dtype=dtype), None]
    padded = pad_labels(labels, (2, 3), 255, torch.device("cpu"))
    assert padded.dtype == torch.int64
    assert padded.tolist() == [[[1, 1, 255], [255] * 3], [[255] * 3] * 2]
    assert pad_labels(labels[:1], (1, 3), 1000, torch.device("cpu")).tolist() == [[[1, 1, 1000]]]
