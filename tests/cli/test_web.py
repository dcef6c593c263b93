"""`topformer web`."""

import os
import signal
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.helpers import exported, save_untrained, topformer
from topformer_d2.web import runtime

pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime")


@pytest.fixture
def runtime_folder(tmp_path):
    folder = tmp_path / "runtime"
    (folder / "dist").mkdir(parents=True)
    for name in runtime.FILES:
        (folder / "dist" / name).write_text(name)
    text = f'{{"name": "{runtime.PACKAGE}", "version": "{runtime.VERSION}"}}'
    (folder / "package.json").write_text(text)
    return folder


@pytest.fixture
def model(tmp_path, tiny_config):
    cfg = tiny_config()
    weights = save_untrained(cfg, tmp_path / "weights.pth")
    return exported(cfg, weights, tmp_path / "small.onnx")


def test_an_onnx_file(model, runtime_folder, tmp_path):
    words = ["web", model, "--output", tmp_path / "site", "--runtime", runtime_folder]
    result = topformer(*words)
    assert result.returncode == 0, result.stderr
    assert f"wrote {tmp_path / 'site'}" in result.stdout
    assert (tmp_path / "site/model.onnx").read_bytes() == Path(model).read_bytes()
    assert "<h1>small</h1>" in (tmp_path / "site/index.html").read_text()
    result = topformer(*words, "--weights", "w.pth")
    assert result.returncode == 1 and "--weights w.pth" in result.stderr


@pytest.mark.slow
def test_a_config_is_exported(tmp_path, runtime_folder, tiny_config):
    cfg = tiny_config()
    weights = save_untrained(cfg, tmp_path / "weights.pth")
    (tmp_path / "small.yaml").write_text(cfg.dump())
    words = ["web", tmp_path / "small.yaml", "--runtime", runtime_folder, "--output"]
    result = topformer(*words, tmp_path / "site", "--weights", weights)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "site/model.onnx").stat().st_size > 100_000
    result = topformer(*words, tmp_path / "other")
    assert result.returncode == 1 and "weights" in result.stderr


def test_what_does_not_go_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "_fetch", lambda target: pytest.fail("npm was asked"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, reason in (
            (["--output", tmp_path / "full"], f"--output {tmp_path / 'full'}"),
            (["--serve", "--port", port], f"--port {port}"),
            (["--output", tmp_path / "new", "--port", 1], "--serve"),
            (["--output", tmp_path / "new", "--runtime", tmp_path], f"--runtime {tmp_path}"),
        ):
            result = topformer("web", "camvid_t", *words)
            assert result.returncode == 1 and reason in result.stderr, result.stderr
    result = topformer("web", "camvid_t")
    assert result.returncode == 2 and "--output" in result.stderr
    assert not (tmp_path / "new").exists()


def test_serving_ends_by_ctrl_c(model, runtime_folder, monkeypatch):
    seen = []

    def visit(url):
        with urllib.request.urlopen(url) as answer:
            seen.append(answer.status)
        os.kill(os.getpid(), signal.SIGINT)

    def serve(server):
        threading.Thread(target=visit, args=(server.url,)).start()
        forever(server)

    from topformer_d2.web import SiteServer

    forever = SiteServer.serve_forever
    monkeypatch.setattr(SiteServer, "serve_forever", serve)
    result = topformer("web", model, "--runtime", runtime_folder, "--serve", "--port", 0)
    assert result.returncode == 0, result.stderr
    assert seen == [200] and "http://127.0.0.1:" in result.stdout
