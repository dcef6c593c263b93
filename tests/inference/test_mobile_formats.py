"""Formats for phones and boards, on networks of a few operators; whole models are slow tests."""

import gc
import logging
import os
import shutil
import sys
import threading
import time
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference import Predictor
from topformer_d2.inference.export_info import ExportInfo
from topformer_d2.inference.formats import FORMATS, coreml, executorch, import_extra, litert
from topformer_d2.inference.formats.description_file import write_description
from topformer_d2.inference.formats.quiet import quietly
from topformer_d2.inference.model_info import ModelInfo
from topformer_d2.inference.optimization import fold_norms

SIZE = (16, 24)
# What litert-torch 0.10.0 makes of `make_network`: it is not installed beside the other libraries.
LITERT_FILE = Path(__file__).with_name("shared_convolution.tflite")


@pytest.fixture(scope="module")
def info():
    model = ModelInfo.from_config(get_config("seg_topformer_t_synthetic"))
    return ExportInfo(model, outputs=("logits",), size=SIZE)


class SharedConvolution(nn.Module):
    """As in the light detector's towers: two norms behind one convolution, and one in another."""

    def __init__(self, classes):
        super().__init__()
        self.stem = Conv2d(3, 8, 3, stride=2, padding=1, bias=False, norm=nn.BatchNorm2d(8))
        self.shared = Conv2d(8, classes, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(classes) for _ in range(2))
        for i, norm in enumerate((self.stem.norm, *self.norms)):
            nn.init.constant_(norm.running_mean, 0.5 - i)
            nn.init.constant_(norm.running_var, 1.0 + i)
            nn.init.constant_(norm.weight, 2.0 - i / 2)
        self.eval().requires_grad_(False)

    def forward(self, x):
        x = self.stem(x)
        return (self.norms[0](self.shared(x)) + torch.relu(self.norms[1](self.shared(x))),)


def make_network(info):
    torch.manual_seed(0)
    return SharedConvolution(len(info.model.pixels.names))


@pytest.fixture
def network(info):
    return make_network(info)


@pytest.fixture
def x():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(
    scope="module", params=("litert", pytest.param("executorch", marks=pytest.mark.slow))
)
def once(request, info, tmp_path_factory):
    """A format and its file of the network."""
    kind = FORMATS[request.param]
    path = tmp_path_factory.mktemp(kind.name) / f"m{kind.extension}"
    if kind.name == "litert" and find_spec("litert_torch") is None:
        pytest.importorskip("ai_edge_litert", reason="not installed")
        shutil.copy(LITERT_FILE, path)
        write_description(info, path)
    else:
        installed(kind.name).write(make_network(info), info, path)
    return kind, path


@pytest.fixture
def written(once, tmp_path):
    """A format, and a copy of its file of the network."""
    kind, path = once
    for suffix in (kind.extension, *kind.beside):
        shutil.copy(path.with_suffix(suffix), tmp_path)
    return kind, tmp_path / path.name


def installed(name):
    kind = FORMATS[name]
    for library in kind.libraries:
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    return kind


def test_norms_become_weights_or_products(network, x):
    expected = network(x)[0]
    fold_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(x)[0], expected, rtol=0, atol=1e-5)


def test_a_file_gives_what_the_network_gives(written, network, x, info):
    kind, path = written
    expected = network(x)[0].numpy()
    session = kind.session(path, 1)
    assert session.export == info
    for _ in range(2):
        outputs = session.run(x.numpy())
        np.testing.assert_allclose(outputs["logits"], expected, rtol=0, atol=1e-5)
    kept = outputs["logits"].copy()
    session.run(np.zeros_like(x))
    np.testing.assert_array_equal(outputs["logits"], kept)


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 3, 24, 16), np.float32), np.zeros((1, 3, *SIZE)), np.zeros(3)]
)
def test_another_input_is_refused(written, wrong):
    kind, path = written
    with pytest.raises(InputError, match=r"m\.\w+ cannot be run on float"):
        kind.session(path, 1).run(wrong)


def test_a_description_of_another_network_is_refused(written, info):
    kind, path = written
    write_description(replace(info, size=(24, 16)), path)
    with pytest.raises(InputError, match=r"takes images as float \(1, 3, 16, 24\) instead of"):
        kind.session(path, 1)


def test_a_cut_file_with_a_description_of_its_own_is_refused(written, info, capfd):
    kind, path = written
    content = path.read_bytes()
    capfd.readouterr()
    for share in (0.0, 0.02, 0.5, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        write_description(info, path)
        with pytest.raises(InputError, match=r"m\.\w+ is not a \w+ that \w+ can run"):
            kind.session(path, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow  # ExecuTorch's imports
def test_a_program_for_a_runtime_with_another_backend_is_refused(network, info, tmp_path, capfd):
    kind, path = installed("executorch"), tmp_path / "m.pte"
    kind.write(network, info, path)
    content = path.read_bytes()
    assert b"XnnpackBackend" in content
    path.write_bytes(content.replace(b"XnnpackBackend", b"XnnpackBackenX"))
    write_description(info, path)
    capfd.readouterr()
    with pytest.raises(InputError, match=r"m\.pte is not a program that ExecuTorch can run"):
        kind.session(path, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name", ["litert", *(pytest.param(n, marks=pytest.mark.slow) for n in ("executorch", "coreml"))]
)
def test_nothing_is_printed(name, network, info, x, tmp_path, capfd):
    kind = installed(name)
    path = tmp_path / f"m{kind.extension}"
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind.write(network, info, path)
        if not kind.not_run:
            kind.session(path, 1).run(x.numpy())
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def log(caplog):
    """caplog, also where the package's logger was set up before."""
    caplog.set_level(logging.DEBUG, logger="topformer_d2")
    logger = logging.getLogger("topformer_d2")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_what_is_printed_goes_to_the_log(capfd, log):
    with quietly("a library"):
        print("of Python")
        os.write(2, b"of C")
        warnings.warn("a warning", stacklevel=1)
    print("after")
    assert capfd.readouterr() == ("after\n", "")
    assert "a library printed:" in log.text
    assert "of Python" in log.text and "of C" in log.text


def test_two_threads_are_quiet_one_after_the_other(capfd):
    begun = threading.Event()

    def other():
        begun.set()
        with quietly("another library"):
            print("of another thread")

    thread = threading.Thread(target=other)
    with quietly("a library"):
        thread.start()
        assert begun.wait(60)
        time.sleep(0.05)
        print("caf\u00e9 \u2705")
    thread.join()
    print("after")
    assert capfd.readouterr() == ("after\n", "")


@pytest.mark.slow
def test_one_pool_of_threads_for_all_programs(network, info, x, tmp_path, log):
    kind = installed("executorch")
    pool = import_extra("executorch.extension.pybindings.portable_lib", kind.extra)
    path = tmp_path / "m.pte"
    kind.write(network, info, path)
    gc.collect()
    sessions = [kind.session(path, 1)]
    assert pool._threadpool_get_thread_count() == 1 and "not used" not in log.text
    sessions.append(kind.session(path, 2))
    assert "`num_threads` 2 is not used" in log.text
    outputs = [session.run(x.numpy())["logits"] for session in sessions]
    np.testing.assert_array_equal(*outputs)
    sessions.clear()
    again = kind.session(path, 2)
    assert pool._threadpool_get_thread_count() == 2
    np.testing.assert_allclose(again.run(x.numpy())["logits"], outputs[0], rtol=0, atol=1e-6)


def test_the_converter_is_named_where_it_is_missing(monkeypatch, network, info, tmp_path):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(InputError, match=r"'topformer_d2\[litert\]' .*--no-deps litert-torch=="):
        litert.write_litert(network, info, tmp_path / "m.tflite")


class OneMore(SharedConvolution):
    def forward(self, x):
        return (self.shared(self.stem(x)) + super().forward(x)[0],)


@pytest.fixture
def package(network, info, tmp_path):
    kind = installed("coreml")
    path = tmp_path / "m.mlpackage"
    kind.write(network, info, path)
    return path


def test_the_structure_of_a_package(package, network, info):
    coreml.check_structure(network, info, package)
    spec = import_extra("coremltools", "coreml").utils.load_spec(str(package))
    assert ExportInfo.from_json(spec.description.metadata.userDefined["topformer_d2"], "m") == info
    other = OneMore(len(info.model.pixels.names))
    with pytest.raises(InputError, match=r"3 convolutions .* instead of 5 with"):
        coreml.check_structure(other, info, package)
    network.shared = Conv2d(8, len(info.model.pixels.names), 3, padding=1)
    with pytest.raises(InputError, match=r"convolutions with \d+ weights instead of 3 with"):
        coreml.check_structure(network, info, package)
    with pytest.raises(InputError, match=r"takes images as float \(1, 3, 16, 24\) instead of"):
        coreml.check_structure(network, replace(info, size=(32, 24)), package)


@pytest.mark.skipif(not coreml.FORMAT.not_run, reason="Core ML is here")
def test_a_package_is_not_run_here(package):
    with pytest.raises(InputError, match=r"m\.mlpackage cannot be run: Core ML is a part of macOS"):
        Predictor(str(package))


def test_a_program_for_another_backend_is_refused(tmp_path, info):
    installed("executorch")
    with quietly("ExecuTorch"):
        runtime = import_extra("executorch.runtime", "executorch").Runtime.get()
    names = set(runtime.backend_registry.registered_backend_names) - {"XnnpackBackend"}
    if not names:
        pytest.skip("this runtime has no other backend")
    path = tmp_path / "m.pte"
    for name in names:
        path.write_bytes(b"ET" + name.encode())
        write_description(info, path)
        with pytest.raises(InputError, match=rf"m\.pte is for ExecuTorch's {name}"):
            executorch.ExecuTorchSession(path)
