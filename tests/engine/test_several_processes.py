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


def evaluate(cfg, path, weights):
    setup_run(cfg)
    model = Trainer.build_model(cfg)
    model.load_state_dict(torch.load(weights))
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        torch.save(dict(results["sem_seg"]), path)


@pytest.fixture
def weights(tiny_config, tmp_path):
    """A file of an untrained model's."""
    torch.manual_seed(0)
    path = str(tmp_path / "weights.pth")
    torch.save(Trainer.build_model(tiny_config()).state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_train_and_evaluate_as_one(tiny_config, tmp_path, weights, processes):
    cfg = tiny_config(*STEADY, "SOLVER.MAX_ITER", "3", "SEED", "1")
    found = []
    for number in (1, processes):
        path = str(tmp_path / f"{number}.pth")
        launch(train_and_evaluate, number, device="cpu", args=(cfg, path, weights))
        found.append(torch.load(path))
    one, several = found
    assert several["losses"] == pytest.approx(one["losses"], rel=1e-5) and len(one["losses"]) == 3
    for name, expected in one["gradients"].items():
        # SyncBN's variance, a difference of means, is right to some 1e-6, and so are the sums of a
        # single process's BatchNorm in channels-last memory. Maps are 1x1 here.
        most = max(1e-1 * float(expected.abs().max()), 1e-6)
        assert float((several["gradients"][name] - expected).abs().max()) <= most, name
    assert several["results"] == pytest.approx(one["results"], abs=1e-9)


@pytest.mark.slow
def test_each_image_counts_once_where_processes_cannot_share_them_evenly(
    tiny_config, tmp_path, weights
):
    """Three share the 4 test images."""
    found = []
    for number in (1, 3):
        path = str(tmp_path / f"{number}.pth")
        launch(evaluate, number, device="cpu", args=(tiny_config(), path, weights))
        found.append(torch.load(path))
    assert found[0] == found[1]
