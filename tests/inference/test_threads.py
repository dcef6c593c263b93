"""The number of threads, set for a while."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from topformer_d2 import get_config
from topformer_d2.inference.export_info import ExportInfo
from topformer_d2.inference.formats import FORMATS
from topformer_d2.inference.model_info import ModelInfo
from topformer_d2.inference.threads import threads


def test_overlapping_calls_leave_the_number_of_threads():
    before = torch.get_num_threads(), cv2.getNumThreads()
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def second():
        first_in.wait(60)
        with threads(1):
            second_in.set()
            first_out.wait(60)
        return torch.get_num_threads()

    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(second)
            with threads(1):
                first_in.set()
                assert second_in.wait(60)
                with threads(3):
                    assert torch.get_num_threads() == 3
                assert torch.get_num_threads() == 1
            first_out.set()
            assert other.result() == 2
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class Wide(nn.Module):
    """A convolution that takes some milliseconds, of which every thread would get a part."""

    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, classes, 5, padding=2))
        self.eval().requires_grad_(False)

    def forward(self, x):
        return (self.layers(x),)


def time_by_thread():
    """Nanoseconds on a processor so far, of each of this process's threads."""
    times = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            times[task.name] = int((task / "schedstat").read_text().split()[0])
        except OSError:  # it has ended
            continue
    return times


def working_threads(session, x):
    """How many threads take a part of ten answers' time."""
    before = time_by_thread()
    for _ in range(10):
        session.run(x)
    rises = [time - before.get(thread, 0) for thread, time in time_by_thread().items()]
    return sum(rise > 0.05 * sum(rises) for rise in rises)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux tells threads' times")
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "name",
    [
        *("onnx", "openvino", "ncnn", "mnn"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("litert", "executorch")),
    ],
)
def test_a_file_runs_on_as_many_threads_as_asked_for(name, number, tmp_path):
    kind = FORMATS[name]
    if missing := [library for library in kind.libraries if find_spec(library) is None]:
        pytest.skip(f"{missing} not installed")
    model = ModelInfo.from_config(get_config("seg_topformer_t_synthetic"))
    info = ExportInfo(model, outputs=("logits",), size=(128, 128))
    torch.manual_seed(0)
    kind.write(Wide(len(model.pixels.names)), info, tmp_path / f"m{kind.extension}")
    gc.collect()  # ExecuTorch's pool is as large as the first open file asks for
    session = kind.session(tmp_path / f"m{kind.extension}", number)
    x = np.ones((1, 3, 128, 128), np.float32)
    session.run(x)
    # On a busy machine a runtime's second thread may get no part of ten answers.
    most = 0
    for _ in range(20):
        most = max(most, working_threads(session, x))
        if most >= number:
            break
    assert most == number
