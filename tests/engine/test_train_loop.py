"""A training step: losses that are read later, the fused optimizer, the layout of a batch."""

import copy
import math

import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.engine.test_resume import options
from topformer_d2.checkpoint import read_state_dict
from topformer_d2.engine import Trainer, train_loop
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
        with pytest.raises(FloatingPointError, match=r"iteration=1!.*\n.*nan"):
            loop.state_dict()
        with pytest.raises(FloatingPointError, match="iteration=1!"):
            loop.run_step()
        assert storage.iter == 3


def test_nothing_is_saved_of_a_run_whose_unread_loss_is_not_finite(
    tiny_config, tmp_path, monkeypatch
):
    from topformer_d2.modeling import TopFormerSegmentor

    monkeypatch.setattr(train_loop, "READ_PERIOD", 20)
    build = train_loop.AccumulatingTrainer.__init__

    def as_on_a_gpu(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.read_period = train_loop.READ_PERIOD

    forward = TopFormerSegmentor.forward
    monkeypatch.setattr(train_loop.AccumulatingTrainer, "__init__", as_on_a_gpu)
    monkeypatch.setattr(
        TopFormerSegmentor,
        "forward",
        lambda self, batch: {k: v * math.nan for k, v in forward(self, batch).items()},
    )
    cfg = tiny_config(*options(tmp_path, "5", "out"), "SOLVER.CHECKPOINT_PERIOD", "3")
    with pytest.raises(InputError, match="not finite in iteration 0"):
        Trainer(cfg).train()
    assert not list((tmp_path / "out").glob("*.pth"))


@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_a_state_that_was_not_fused_is_gone_on_from(tiny_config, name):
    """As of an older checkpoint: the same weights follow but for their last bits."""
    trainer = Trainer(tiny_config("SOLVER.OPTIMIZER", name, "SEED", "1"))
    with EventStorage():
        trainer.run_step()
    state = copy.deepcopy(trainer.optimizer.state_dict())
    assert all(group["fused"] for group in state["param_groups"])
    for group in state["param_groups"]:
        group["fused"] = None
    weights = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    found = []
    for fused in (True, None):
        trainer.model.load_state_dict(weights)
        trainer.optimizer.load_state_dict(copy.deepcopy(state))
        assert all(group["fused"] is True for group in trainer.optimizer.param_groups)
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
