"""`topformer predict --engine ray`: its options, on the engine of one process."""

import os
import re
import sys

import pytest

from tests.helpers import REPOSITORY, topformer
from tests.inference.conftest import COUNT
from topformer_d2.cli import predict_bulk
from topformer_d2.inference.bulk.work import in_process

MODEL = ("--model", "camvid_t")


def command(photos, tmp_path, *words):
    return topformer("predict", "--input", photos, "--output", tmp_path / "out", *words)


def test_the_command(photos, tmp_path, monkeypatch):
    made = {}

    def engine(**keys):
        made.update(keys)
        return in_process

    monkeypatch.setattr(predict_bulk, "RayEngine", engine)
    for path in sorted(photos.iterdir())[4:]:
        path.unlink()
    (photos / "00002.png").write_bytes(b"")
    words = (*MODEL, "--engine", "ray", "--actors", 3, "--partition-size", 3)
    for _ in range(2):
        result = command(photos, tmp_path, *words)
        assert result.returncode == 1 and "3 of 4 images done" in result.stdout, result.stderr
        assert "1 images" in result.stderr and "rejects.jsonl" in result.stderr
    assert "3 of them by earlier runs" in result.stdout  # and one that was rejected
    assert str(tmp_path / "out/rejects.jsonl") in result.stderr
    assert made == {"actors": 3, "address": None, "cpus_per_actor": 1, "gpus_per_actor": 0}
    assert len(list((tmp_path / "out").glob("part-*/labels/*_label.png"))) == 3
    result = command(photos, tmp_path, *words, "--max-pixels", 100000)
    assert result.returncode == 1 and "settings.max_pixels" in result.stderr


def test_the_example_of_the_page(photos, tmp_path, monkeypatch, capsys):
    page = (REPOSITORY / "docs/bulk.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    photos.rename(tmp_path / "photos")
    (tmp_path / "photos/00001.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert capsys.readouterr().out == f"{COUNT - 1} 1\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--track",), "--track does not go with --engine ray"),
        (("--save-json", "a.jsonl"), "--save-json does not go with --engine ray"),
        (("--save-labels", "coco"), "--save-labels does not go with --engine ray"),
        (("--min-score", 0.5), "--min-score does not go with --engine ray"),
        (("--gpus-per-actor", 0.5), "--gpus-per-actor"),
        (("--actors", 0), "--actors is 0"),
        (("--partition-size", 0), "--partition-size is 0"),
        (("--box-format", "parquet"), "--box-format: this model finds label maps alone"),
    ],
)
def test_options_that_do_not_go_with_it(photos, tmp_path, words, named):
    pytest.importorskip("ray")
    result = command(photos, tmp_path, *MODEL, "--engine", "ray", *words)
    assert result.returncode == 1 and f"error: {named}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_stopped_says_how_to_go_on(photos, tmp_path, monkeypatch):
    def stopping(partitions, work):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(predict_bulk, "RayEngine", lambda **_: stopping)
    result = command(photos, tmp_path, *MODEL, "--engine", "ray")
    assert result.returncode == 130 and "the same command" in result.stderr


def test_a_store_of_an_unknown_scheme_names_the_option(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    monkeypatch.setattr(predict_bulk, "RayEngine", lambda **_: in_process)
    result = command("foo://bucket/in", tmp_path, *MODEL, "--engine", "ray")
    assert result.returncode == 1 and "error: --input foo://bucket/in" in result.stderr
    assert "fsspec" in result.stderr


def test_options_that_need_it_and_what_it_does_not_read(photos, tmp_path):
    result = command(photos, tmp_path, *MODEL, "--actors", 2)
    assert result.returncode == 1 and "--actors is for --engine ray" in result.stderr
    for source in ("camera", "camera:1"):
        result = command(source, tmp_path, *MODEL, "--engine", "ray")
        assert result.returncode == 1 and "no video or camera" in result.stderr
    (tmp_path / "a.mp4").write_bytes(b"x")
    result = command(tmp_path / "a.mp4", tmp_path, *MODEL, "--engine", "ray")
    assert result.returncode == 1 and "no video or camera" in result.stderr


def test_without_ray_the_command_says_what_to_install(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = command(photos, tmp_path, *MODEL, "--engine", "ray")
    assert result.returncode == 1 and "pip install topformer_d2[ray]" in result.stderr
    assert not os.path.exists(tmp_path / "out")
