"""The C files in a C program: under sanitizers, and on 64-bit ARM by emulation."""

import shutil
import subprocess

import numpy as np
import pytest
import torch

from tests.helpers import REPOSITORY
from tests.inference.test_labels import HARD, draw_case
from tests.native.library import compiled_folder
from topformer_d2 import label_map
from topformer_d2.native import library
from topformer_d2.native.library import SOURCES

ARM, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
HOST = ["cc", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WAYS = {
    "sanitizers": (HOST, []),
    "arm": ([ARM, "-static"], [EMULATOR]),
}


def draw_cases():
    cases = [draw_case(seed) for seed in range(24)]
    cases += [
        (HARD[kind](logits), size, chain) for kind in HARD for logits, size, chain in cases[:3]
    ]
    generator = torch.Generator().manual_seed(0)
    return [*cases, (torch.randn(300, 7, 5, generator=generator), (40, 31), {})]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_c_program_gives_the_same(way, tmp_path, monkeypatch):
    compiler, runner = WAYS[way]
    if any(shutil.which(each) is None for each in (compiler[0], *runner)):
        pytest.skip(f"{compiler[0]} or {runner} is not installed")
    monkeypatch.setattr(library, "FOLDER", compiled_folder() or tmp_path)
    is_compiled = library.native_library() is not None
    program = tmp_path / "driver"
    files = [SOURCES / "label_map.c", SOURCES / "boxes.c", REPOSITORY / "tests/native/driver.c"]
    flags = ["-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    subprocess.run([*compiler, *flags, *files, "-lm", "-o", program], check=True)
    cases = draw_cases()
    generator = np.random.default_rng(0)
    logits = generator.normal(-1, 2, (2, 8, 8)).astype(np.float32)
    deltas = generator.normal(0, 0.3, (4, 8, 8)).astype(np.float32)
    with (tmp_path / "cases").open("wb") as file:
        file.write(np.int32(len(cases)).tobytes())
        for values, size, chain in cases:
            none = (0, 0)
            sides = (*chain.get("input_size", none), *chain.get("valid_size", none), *size)
            file.write(np.array([*values.shape, *sides], np.int32).tobytes())
            file.write(values.numpy().tobytes())
        file.write(logits.tobytes() + deltas.tobytes())
    subprocess.run([*runner, program, tmp_path / "cases", tmp_path / "answers"], check=True)
    with (tmp_path / "answers").open("rb") as file:
        for values, size, chain in cases:
            labels = label_map(values, size, **chain).numpy()
            _, scores = label_map(values, size, **chain, confidence=True)
            kind = np.uint8 if len(values) <= 256 else np.uint16
            found = np.fromfile(file, kind, labels.size).reshape(size)
            # The same operations in the same order; Python's way rounds otherwise.
            assert np.mean(found != labels) <= (0 if is_compiled else 1e-4)
            np.testing.assert_allclose(
                np.fromfile(file, np.float32, labels.size).reshape(size), scores, atol=1e-4
            )
        count, *_ = np.fromfile(file, np.int32, 1)
        boxes = np.fromfile(file, np.float32, 80).reshape(20, 4)[:count]
        scores = np.fromfile(file, np.float32, 20)[:count]
        classes = np.fromfile(file, np.int32, 20)[:count]
        assert np.fromfile(file, np.uint8).size == 0
    assert count == 20 and (scores[1:] <= scores[:-1]).all()
    best = np.unravel_index(logits.argmax(), logits.shape)
    assert classes[0] == best[0] and scores[0] == pytest.approx(1 / (1 + np.exp(-logits.max())))
    shift = deltas[:2, best[1], best[2]] * 24
    middle = (np.array(best[:0:-1]) + 0.5) * 8 + shift
    assert (boxes[0, :2] + boxes[0, 2:]) / 2 == pytest.approx(middle, abs=1e-3)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_program_of_the_docs_runs(tmp_path):
    page = (REPOSITORY / "docs/label_maps.md").read_text()
    program = page.split("```c\n")[1].split("```")[0]
    (tmp_path / "program.c").write_text(program)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    files = [tmp_path / "program.c", SOURCES / "label_map.c"]
    subprocess.run(["cc", *flags, *files, "-lm", "-o", tmp_path / "program"], check=True)
    result = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    assert result.stdout == "7 0\n"
