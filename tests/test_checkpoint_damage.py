"""Damaged files of weights, and files of something else, are refused."""

import math
import os
import zipfile
from collections import OrderedDict
from urllib.error import URLError

import numpy as np
import pytest
import torch
from detectron2.utils.file_io import PathManager
from torch import nn

from topformer_d2.checkpoint import (
    SafeCheckpointer,
    read_state_dict,
    read_weights,
    save_state_dict,
)
from topformer_d2.checkpoint.contents import strip_prefix, strip_wrappers
from topformer_d2.errors import InputError


def test_a_pipe_is_not_waited_for(tmp_path):
    path = str(tmp_path / "x.pth")
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"x\.pth is a pipe"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_flipped_bytes_never_pass(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    weights = {"a": torch.randn(100, 100), "b": torch.zeros((), dtype=torch.bfloat16)}
    save_state_dict(weights, str(path))
    assert torch.equal(read_weights(str(path))["a"], weights["a"])
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(whole), size=100):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            found = read_weights(str(path))
        except InputError as e:
            assert f"x.{suffix}" in str(e)
        else:  # padding and dates, which change nothing
            assert found.keys() == weights.keys()
            assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_other_wrappers_keys(tmp_path):
    model = nn.Linear(2, 3)
    own = {key: value + 1 for key, value in model.state_dict().items()}
    path = str(tmp_path / "x.pth")
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."):
        for wrapper in ("model", "state_dict"):
            torch.save({wrapper: OrderedDict((prefix + k, v) for k, v in own.items())}, path)
            SafeCheckpointer(model, require_all=True).load(path)
            assert torch.equal(model.weight, own["weight"])
            nn.init.zeros_(model.weight)


@pytest.mark.parametrize("prefix", ["ema.", "net.", "student.model.", "_fsdp_wrapped_module."])
def test_any_prefix_before_the_models_keys(tmp_path, prefix):
    model = nn.Sequential(OrderedDict(body=nn.Linear(2, 3), head=nn.Linear(3, 1)))
    given = {prefix + key: value + 1 for key, value in model.state_dict().items()}
    # torch.optim.swa_utils.AveragedModel has a counter beside the wrapped model.
    torch.save({"model": {**given, "n_averaged": torch.tensor(3)}}, tmp_path / "x.pth")
    SafeCheckpointer(model, require_all=True).load(str(tmp_path / "x.pth"))
    for key, value in model.state_dict().items():
        assert torch.equal(value, given[prefix + key])


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "ema", "model_ema", "net", "params"]
)
def test_weights_under_another_key(tmp_path, key):
    model, path = nn.Linear(2, 3), str(tmp_path / "x.pth")
    own = {name: value + 1 for name, value in model.state_dict().items()}
    beside = {"epoch": 3, "optimizer": {"state": {}, "param_groups": []}, "model": "tiny"}
    torch.save({**beside, "step": torch.tensor(3), key: own}, path)
    SafeCheckpointer(model, require_all=True).load(path)
    assert torch.equal(model.weight, own["weight"])
    assert read_weights(path).keys() == own.keys()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"ema": {"a": torch.ones(2)}, "net": {"a": torch.ones(2)}}, r"'ema' \(1 tensors\), 'net'"),
        ({"epoch": 3}, r"'epoch' \(int\)"),
        ({"model": {"a": torch.ones(2), "version": 1}}, "1 others, such as 'version'"),
        ({"a": torch.ones(2), "extra": {"b": torch.ones(2)}}, r"'a' \(Tensor\)"),
        ({1: torch.ones(2)}, "'1'"),
        ({}, "no entry"),
    ],
)
def test_weights_that_cannot_be_told(tmp_path, content, found):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=rf"x\.pth .*{found}.*'state_dict'"):
        read_weights(str(tmp_path / "x.pth"))
    with pytest.raises(InputError, match=found):
        SafeCheckpointer(nn.Linear(2, 2)).load(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrapped_part(tmp_path, wrapper):
    """Of the file's model, and of the one here."""
    plain = nn.Sequential(OrderedDict(body=nn.Linear(2, 3), head=nn.Linear(3, 1)))
    given = {k.replace("body.", f"body.{wrapper}"): v + 1 for k, v in plain.state_dict().items()}
    torch.save({"model": given}, tmp_path / "x.pth")
    body = nn.Linear(2, 3)
    for name in wrapper.split(".")[-2::-1]:
        outer = nn.Module()
        outer.add_module(name, body)
        body = outer
    wrapped = nn.Sequential(OrderedDict(body=body, head=nn.Linear(3, 1)))
    for model in (plain, wrapped):
        SafeCheckpointer(model, require_all=True).load(str(tmp_path / "x.pth"))
        assert all(map(torch.equal, model.state_dict().values(), given.values()))


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda value: value.to("meta"), r"x\.pth has sparse, quantised or empty.*2 tensors"),
        (lambda value: value.to_sparse(), "sparse"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantised"),
        (lambda value: value.long(), r"not floats.*weight is torch\.int64"),
        (lambda value: value.to(torch.complex64), "not floats"),
    ],
)
def test_tensors_of_another_kind_are_refused(tmp_path, convert, message):
    model, path = nn.Linear(2, 3), str(tmp_path / "x.pth")
    torch.save({key: convert(value) for key, value in model.state_dict().items()}, path)
    with pytest.raises(InputError, match=message):
        SafeCheckpointer(model).load(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_floats_of_another_size_are_read(tmp_path, dtype):
    model = nn.Linear(2, 3)
    given = {key: value.to(dtype) for key, value in nn.Linear(2, 3).state_dict().items()}
    torch.save(given, tmp_path / "x.pth")
    SafeCheckpointer(model, require_all=True).load(str(tmp_path / "x.pth"))
    assert torch.equal(model.weight, given["weight"].float())


def test_keys_that_differ_by_a_wrapper_alone():
    both = {"a.w": torch.ones(1), "a.module.w": torch.zeros(1)}
    assert strip_wrappers(both) == both


def test_two_models_in_a_file_are_not_guessed_between():
    own = nn.Linear(2, 2).state_dict()
    both = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in own.items()}
    assert strip_prefix(both, own) == both


def test_weights_that_cannot_be_fetched(monkeypatch):
    def refuse(url):
        raise URLError("refused")

    monkeypatch.setattr(PathManager, "get_local_path", refuse)
    with pytest.raises(InputError, match=r"http://host/a\.pth cannot be read: .*refused"):
        read_state_dict("http://host/a.pth")


def test_a_file_without_true_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"x": torch.ones(3)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_state_dict(str(tmp_path / "x.pth"))["x"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", ["empty", "compressed"])
def test_archives_that_pytorch_does_not_write(tmp_path, kind):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if kind == "compressed":
            archive.writestr("x/data.pkl", b"\0" * 10**6)
    with pytest.raises(InputError, match=r"x\.pth"):
        read_state_dict(str(path))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_of_a_training_that_diverged_are_refused(tmp_path, value):
    model, path = nn.Linear(2, 3), str(tmp_path / "x.pth")
    save_state_dict({**model.state_dict(), "bias": torch.full((3,), value)}, path)
    with pytest.raises(InputError, match=r"x\.pth has NaN or infinite values in .*bias"):
        SafeCheckpointer(model).load(path)


def test_what_is_no_file_of_weights_is_named(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"a network")
    found = SafeCheckpointer(nn.Linear(2, 3), require_all=True)
    for path, named in (
        ("", r"`weights`.*MODEL\.WEIGHTS"),
        (str(tmp_path / "m.onnx"), r"m\.onnx is an exported file"),
    ):
        with pytest.raises(InputError, match=named):
            found.load(path)
