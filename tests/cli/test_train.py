"""`topformer train`, and tools/train_net.py beside it."""

import json
import os
import re
import signal
import sys
import time

import pytest
import torch

from tests.helpers import REPOSITORY, datasets_below, start_training, topformer
from topformer_d2.cli import train
from topformer_d2.data.synthetic import write_synthetic
from topformer_d2.engine.failures import LostProcessError

CONFIG = ["--config-file", "configs/seg_topformer_t_synthetic.yaml"]
SMALL = ["INPUT.CROP.SIZE", "[64, 64]", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "4"]


def test_twenty_iterations_then_evaluation(tmp_path):
    options = [*SMALL, "SOLVER.MAX_ITER", "20", "OUTPUT_DIR", tmp_path]
    result = topformer("train", *CONFIG, *options)
    assert result.returncode == 0, result.stderr
    text = result.stdout + result.stderr
    assert "running on the CPU" in text or "cuda" in text
    assert re.search(r"eta: .*iter: 19 .*total_loss: [\d.]+", text)
    assert re.search(r"ring +[\d.]+ +[\d.]+", text) and "mIoU" in text
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert {"total_loss", "lr", "time"} <= lines[0].keys()
    assert lines[-1]["sem_seg/mIoU"] > 0
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert list(tmp_path.glob("events.out.tfevents.*"))
    evaluated = topformer(
        "train",
        *CONFIG,
        "--eval-only",
        *SMALL,
        "OUTPUT_DIR",
        tmp_path / "again",
        "MODEL.WEIGHTS",
        tmp_path / "model_final.pth",
    )
    assert evaluated.returncode == 0, evaluated.stderr
    name = "inference/synthetic_sem_seg_val/sem_seg_evaluation.json"
    first, second = ((tmp_path / folder / name).read_text() for folder in (".", "again"))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config-file", "configs/seg_topformer_b.yaml"],
            "data prepare ade20k --source",
        ),
        ([*CONFIG, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "7"], "NUM_CLASSES is 7, but dataset"),
        ([*CONFIG, "SOLVER.BASELR", "1"], "SOLVER.BASELR"),
        ([*CONFIG, "MODEL.TOPFORMER.VARIANT", "nano"], "known: tiny, small, base"),
        ([*CONFIG, "--eval-only"], "add MODEL.WEIGHTS"),
        (["--config-file", ""], "--config-file"),
        ([*CONFIG, "--num-gpus", "99"], "number of GPUs is 99"),
        ([*CONFIG, "--num-gpus", "99999", "MODEL.DEVICE", "cpu"], "on the CPU is 99999"),
        ([*CONFIG, "--num-gpus", "-3"], "number of GPUs is -3"),
        ([*CONFIG, "--num-machines", "2"], "--num-machines"),
        ([*CONFIG, "MODEL.BACKBONE.NAME", "resnet"], "MODEL.BACKBONE.NAME is 'resnet'"),
        ([*CONFIG, "MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--config-file", "nowhere.yaml"], "nowhere.yaml does not exist"),
    ],
    ids=[
        "dataset",
        "classes",
        "key",
        "variant",
        "no weights",
        "no config",
        "GPUs",
        "CPU processes",
        "-GPUs",
        "machines",
        "backbone",
        "weights",
        "file",
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, arguments, message):
    if arguments[1] != "nowhere.yaml":
        arguments = [*arguments, "OUTPUT_DIR", tmp_path]
    result = topformer("train", *arguments)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr + result.stdout


def test_what_nccl_said_is_in_the_message(monkeypatch, capsys):
    def lose(*_args, **_kwargs):
        raise LostProcessError("process 1: NCCL error in: a.cpp")

    monkeypatch.setattr(train, "launch", lose)
    parser = train.make_parser()
    assert train.run(parser.parse_args([*CONFIG, "MODEL.DEVICE", "cpu"]), parser) == 1
    message = capsys.readouterr().err
    assert "process 1: NCCL error in: a.cpp" in message and "--resume" in message
    assert "machine" not in message


@pytest.mark.parametrize(
    ("images", "workers"),
    # PyTorch waits 5 s for each worker of a loader that is collected with its error.
    [(4, "0"), (40, "0"), pytest.param(40, "2", marks=pytest.mark.slow)],
)
def test_a_corrupt_image_stops_training_with_its_name(tmp_path, images, workers):
    """Of 4 images it is among the samples that are looked at first, of 40 it is not."""
    root = tmp_path / "data"
    write_synthetic(str(root), images, 1, size=(64, 80))
    image = root / "synthetic/images/train/00002.png"
    image.write_bytes(image.read_bytes()[:100])
    options = [*SMALL, "OUTPUT_DIR", tmp_path / "out", "DATALOADER.NUM_WORKERS", workers]
    with datasets_below(root):
        result = topformer("train", *CONFIG, *options)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {image} cannot be read")
    assert (f"topformer data check {' '.join(CONFIG)} INPUT.CROP" in last) == (images == 4)
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.slow  # engine/test_resume.py has signals within this process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resume_goes_on(tmp_path, number):
    options = [*SMALL, "SOLVER.MAX_ITER", "4000", "OUTPUT_DIR", str(tmp_path)]
    command = [sys.executable, str(REPOSITORY / "tools/train_net.py"), *CONFIG, *options]
    process = start_training(command)
    time.sleep(0.2)
    os.killpg(process.pid, number)  # as a terminal does: the loader's processes too
    rest = process.stdout.read()
    assert process.wait(timeout=300) == 128 + number
    assert "--resume goes on from there" in rest and "Traceback" not in rest
    stopped = int(re.search(r"stopped after iteration (\d+)", rest)[1])
    assert (tmp_path / "last_checkpoint").read_text() == f"model_{stopped:07d}.pth"
    options[options.index("4000")] = str(stopped + 3)
    result = topformer("train", *CONFIG, "--resume", *options)
    assert result.returncode == 0, result.stderr
    assert f"Starting training from iteration {stopped + 1}" in result.stdout


@pytest.mark.parametrize(
    ("in_file", "in_command", "has_gpu", "expected"),
    [
        ("cpu", "", True, "cpu"),
        ("cpu", "cuda", True, "cuda"),
        ("", "cpu", True, "cpu"),
        ("", "cpu", False, "cpu"),
        ("", "", True, "cuda"),
        ("", "", False, "cuda"),  # is an error for processes that need GPUs
    ],
)
def test_the_device_on_which_processes_join(
    monkeypatch, tmp_path, in_file, in_command, has_gpu, expected
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    base = REPOSITORY / "configs/seg_topformer_t_synthetic.yaml"
    device = f"MODEL: {{DEVICE: {in_file}}}\n" if in_file else ""
    (tmp_path / "a.yaml").write_text(f"_BASE_: {base}\n{device}")
    words = ["--config-file", str(tmp_path / "a.yaml")]
    words += ["MODEL.DEVICE", in_command] if in_command else []
    assert train.asked_device(train.make_parser().parse_args(words)) == expected
