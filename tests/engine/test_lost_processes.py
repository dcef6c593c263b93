"""What becomes of a run where one of its processes fails, or where it is told to stop."""

import os
import re
import signal
import sys
import time

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from tests.helpers import start_topformer, start_training
from topformer_d2.data.synthetic import write_synthetic
from topformer_d2.engine import Trainer, setup_run
from topformer_d2.engine.launch import launch
from topformer_d2.errors import InputError

TRAIN = ["train", "--config-file", "configs/seg_topformer_t_synthetic.yaml"]
SMALL = ["MODEL.DEVICE", "cpu", "INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64"]
SMALL += ["SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "0"]


class KillLast(HookBase):
    """Kills the last process of a run in its third iteration."""

    def before_step(self):
        if self.trainer.iter == 2 and comm.get_rank() == comm.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_be_killed(cfg):
    setup_run(cfg)
    trainer = Trainer(cfg)
    trainer.register_hooks([KillLast()])
    trainer.train()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_leaves_a_checkpoint(tiny_config):
    cfg = tiny_config("SOLVER.MAX_ITER", "100")
    start = time.monotonic()
    with pytest.raises(torch.multiprocessing.ProcessExitedException) as raised:
        launch(train_and_be_killed, 2, device="cpu", args=(cfg,))
    assert time.monotonic() - start < 600
    assert (raised.value.error_index, raised.value.exit_code) == (1, -signal.SIGKILL)
    with open(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint")) as file:
        assert file.read() == "model_0000001.pth"  # after the last iteration that is whole


def fail_in_last():
    """The last process fails while the others wait for it."""
    if comm.get_rank() == comm.get_world_size() - 1:
        raise InputError("the file a.png is damaged")
    comm.synchronize()


@pytest.mark.slow
def test_an_input_error_of_one_process_is_raised_once(capfd):
    with pytest.raises(InputError, match=r"^the file a\.png is damaged$"):
        launch(fail_in_last, 4, device="cpu")
    assert capfd.readouterr().err.count("damaged") == 0  # it is left to whoever catches it


@pytest.mark.slow
def test_a_damaged_image_is_told_once_by_the_command(tmp_path):
    write_synthetic(str(tmp_path), 40, 1, size=(64, 80))
    image = tmp_path / "synthetic/images/train/00002.png"
    image.write_bytes(image.read_bytes()[:100])
    words = ["--num-gpus", "2", *SMALL, "OUTPUT_DIR", str(tmp_path / "out")]
    result = start_topformer(*TRAIN, *words, DETECTRON2_DATASETS=str(tmp_path))
    assert result.returncode == 1
    (line,) = re.findall("^error: .*", result.stderr, re.M)
    assert line.startswith(f"error: {image} cannot be read")
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_stops_all_with_a_checkpoint(tmp_path, number):
    words = ["--num-gpus", "2", *SMALL, "SOLVER.MAX_ITER", "4000", "OUTPUT_DIR", str(tmp_path)]
    process = start_training([sys.executable, "-m", "topformer_d2", *TRAIN, *words])
    process.send_signal(number)
    rest = process.stdout.read()  # to the end of all processes, which share it
    assert process.wait(timeout=600) == 128 + number
    assert "Traceback" not in rest
    stopped = int(re.search(r"stopped after iteration (\d+)", rest)[1])
    assert (tmp_path / "last_checkpoint").read_text() == f"model_{stopped:07d}.pth"
