"""Files of each format that are damaged, or are replaced while they are opened."""

import random
import re
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.inference.test_mobile_formats import LITERT_FILE, SIZE, make_network
from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.inference.export_info import ExportInfo
from topformer_d2.inference.formats import FORMATS, files_of, of_runtime, onnx
from topformer_d2.inference.formats.description_file import write_description
from topformer_d2.inference.model_info import ModelInfo

# A runtime and the format of its file. Core ML's packages have no checksum and are not run here.
PAIRS = [
    *(("onnxruntime", "onnx"), ("openvino", "onnx"), ("openvino", "openvino")),
    *(("ncnn", "ncnn"), ("mnn", "mnn"), ("litert", "litert")),
    pytest.param(("executorch", "executorch"), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def info():
    model = ModelInfo.from_config(get_config("seg_topformer_t_synthetic"))
    return ExportInfo(model, outputs=("logits",), size=SIZE)


@pytest.fixture(scope="module")
def once(info, tmp_path_factory):
    """A function from a format to its file of the network, and one of other weights."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = [
                write(FORMATS[name], info, tmp_path_factory.mktemp(name) / "m", factor)
                for factor in (1, 2)
            ]
        return made[name]

    return make


def write(kind, info, stem, factor):
    path = stem.with_suffix(kind.extension)
    if kind.name == "litert":  # its converter is not installed beside the other libraries
        pytest.importorskip("ai_edge_litert", reason="not installed")
        weights, content = make_network(info).shared.weight.numpy(), LITERT_FILE.read_bytes()
        assert content.count(weights.tobytes()) == 1
        path.write_bytes(content.replace(weights.tobytes(), (factor * weights).tobytes()))
        write_description(info, path)
        return path
    for library in kind.libraries:
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    network = make_network(info)
    network.shared.weight.data *= factor
    kind.write(network, info, path)
    return path


@pytest.fixture
def written(once, request, tmp_path):
    """The session's class, and the path of a copy of the file and of the other one."""
    runtime, name = request.param
    paths = []
    for path, folder in zip(once(name), ("a", "b"), strict=True):
        (tmp_path / folder).mkdir()
        for file in files_of(path):
            shutil.copy(file, tmp_path / folder)
        paths.append(tmp_path / folder / path.name)
    return (of_runtime(runtime).session, *paths)


@pytest.mark.parametrize("written", PAIRS, indirect=True)
def test_a_file_that_is_replaced_after_its_check_changes_nothing(written, monkeypatch):
    session, path, other = written
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)).numpy()
    expected, others = (session(each, 1).run(x)["logits"] for each in (path, other))
    assert np.abs(others - expected).max() > 0.1
    replaced = []

    def replacing(check):
        def checked(*args):
            found = check(*args)
            for file in files_of(other):
                (path.parent / file.name).write_bytes(file.read_bytes())
            replaced.append(check)
            return found

        return checked

    for module in {sys.modules[session.__module__], onnx}:
        for name in {"read_description", "check_seal"} & {*vars(module)}:
            monkeypatch.setattr(module, name, replacing(getattr(module, name)))
    opened = session(path, 1)
    assert replaced
    for file in files_of(path):
        file.unlink()
    np.testing.assert_array_equal(opened.run(x)["logits"], expected)


@pytest.mark.parametrize("damage", ["a bit", "cut"])
@pytest.mark.parametrize("written", PAIRS, indirect=True)
def test_a_damaged_file_is_named(written, damage):
    session, path, _ = written
    draw = random.Random(0)
    for file in files_of(path):
        whole = file.read_bytes()
        for _ in range(8):
            content = bytearray(whole)
            place = draw.randrange(len(whole))
            if damage == "cut":
                del content[place:]
            else:
                content[place] ^= 1 << draw.randrange(8)
            file.write_bytes(content)
            with pytest.raises(InputError, match=re.escape(file.name)):
                session(path, 1)
        file.write_bytes(whole)
    session(path, 1)
