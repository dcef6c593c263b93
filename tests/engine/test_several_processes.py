"""Processes that train together, here on the CPU, do what one process does on the same batch."""

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from topformer_d2.engine import Trainer, setup_run
from topformer_d2.engine.launch import launch

# These draw random numbers, and each process draws others.
STEADY = ["MODEL.TOPFORMER.DROP_PATH_RATE", "0.0", "MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"]


class KeepLosses(HookBase):
    """The losses that the main process logs of each iteration."""

    def __init__(self):
        self.losses = []

    def after_step(self):
        self.losses.append(self.trainer.storage.latest()["total_loss"][0])


def train_and_evaluate(cfg, path, weights):
    """Write the losses, the last gradients, and the results of evaluating `weights`."""
    setup_run(cfg)
    trainer, hook = Trainer(cfg), KeepLosses()
    if comm.is_main_process():
        trainer.register_hooks([hook])
    trainer.train()
    model = trainer.checkpointer.model
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.load_state_dict(torch.load(weights))
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        found = {"losses": hook.losses, "gradients": gradients, "results": dict(results["sem_seg"])}
        torch.save(found, path)


def test_two_processes_train_and_evaluate_as_one(tiny_config, tmp_path):
    cfg = tiny_config(*STEADY, "SOLVER.MAX_ITER", "3", "SEED", "1")
    torch.manual_seed(0)
    weights = str(tmp_path / "weights.pth")
    torch.save(Trainer.build_model(cfg).state_dict(), weights)
    found = []
    for processes in (1, 2):
        path = str(tmp_path / f"{processes}.pth")
        launch(train_and_evaluate, processes, device="cpu", args=(cfg, path, weights))
        found.append(torch.load(path))
    one, two = found
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5) and len(one["losses"]) == 3
    for name, expected in one["gradients"].items():
        # SyncBN's variance, a difference of means, is right to some 1e-6, and so are the sums of a
        # single process's BatchNorm in channels-last memory. Maps are 1x1 here.
        most = max(1e-1 * float(expected.abs().max()), 1e-6)
        assert float((two["gradients"][name] - expected).abs().max()) <= most, name
    assert two["results"] == pytest.approx(one["results"], abs=1e-9)
