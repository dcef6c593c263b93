"""`make check-gpu` on the CPU, in its short form."""

import re

import pytest
import torch

from benchmarks.gpu_check.__main__ import main
from benchmarks.gpu_check.report import NotHere, Report, require
from benchmarks.gpu_check.training import train
from topformer_d2.engine.train_loop import READ_PERIOD, AccumulatingTrainer


@pytest.mark.slow
def test_all_checks_pass_on_a_cpu_or_need_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "gpu.md"
    assert main(["--output", str(path)]) == 0
    page = path.read_text()
    found = dict(
        re.findall(r"^\| (\S.*?) +\| (pass|fail|not here) +\|", page.partition("## ")[0], re.M)
    )
    assert [name for name, verdict in found.items() if verdict == "not here"] == [
        "training, segmentation: 2 processes with SyncBN",
        "training, detection: 2 processes with SyncBN",
        "the loss does not wait for the GPU",
        "ONNX Runtime on the GPU",
        "the loss beside the straight one",
        "the label map beside the straight one",
    ]
    assert found["training, detection: resume"] == "pass" and len(found) == 29
    assert page.count("images a second") >= 4 and "short form" in page


def test_losses_that_are_read_together_are_found(tiny_config, monkeypatch):
    """As on a GPU, where the first is read after READ_PERIOD iterations or at the end."""
    alone = train(tiny_config("SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()"))
    as_on_gpu = property(lambda self: READ_PERIOD, lambda self, period: None)
    monkeypatch.setattr(AccumulatingTrainer, "read_period", as_on_gpu, raising=False)
    together = train(tiny_config("SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()"))
    assert len(alone) == 3
    assert together == alone


def test_what_fails_is_a_line_and_the_rest_goes_on(capsys):
    report = Report("cpu", is_short=True)
    report.check("a", lambda: require(True, "fine"))
    assert not report.has_failed
    report.check("b", lambda: require(1 > 2, "too much"))
    report.check("c", lambda: 1 / 0)

    def absent():
        raise NotHere("no GPU")

    report.check("d", absent)
    verdicts = [(name, verdict) for name, verdict, _ in report.lines]
    assert verdicts == [("a", "pass"), ("b", "fail"), ("c", "fail"), ("d", "not here")]
    assert report.has_failed and "1 pass, 2 fail, 1 not here" in report.as_page()
    assert "ZeroDivisionError" in report.lines[2][2]


def test_an_output_that_cannot_be_written_is_told_first(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(tmp_path)])
    assert stop.value.code == 1
