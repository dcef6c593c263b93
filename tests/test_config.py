"""The shipped configs, the toolkit's keys, and what is said of wrong ones."""

import pytest
import torch
from detectron2.config import CfgNode, get_cfg

import topformer_d2
from topformer_d2.config import add_topformer_config, list_configs, load_config
from topformer_d2.errors import InputError


@pytest.mark.parametrize("name", list_configs())
def test_every_config_loads_and_survives_a_round_trip(name):
    cfg = topformer_d2.get_config(name)
    merged = get_cfg()
    add_topformer_config(merged)
    assert merged != cfg
    merged.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))
    # Dumped again, for the defaults hold tuples within tuples, which YAML makes lists of.
    assert CfgNode.load_cfg(merged.dump()) == CfgNode.load_cfg(cfg.dump())


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_device_fits_the_machine(monkeypatch, tmp_path, gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert device == topformer_d2.get_config("seg_topformer_t").MODEL.DEVICE
    path = tmp_path / "from_a_gpu.yaml"
    path.write_text("VERSION: 2\nMODEL:\n  DEVICE: cuda\n")
    assert device == load_config(str(path)).MODEL.DEVICE


def test_opts_override():
    cfg = topformer_d2.get_config("seg_topformer_t.yaml", ["SOLVER.BASE_LR", "0.5"])
    assert cfg.SOLVER.BASE_LR == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topformer_d2.get_config("seg_topformer_x"), r"'seg_topformer_x'.*seg_topformer_t"),
        (
            lambda: topformer_d2.get_config("seg_topformer_t", ["MODEL.TOPFORMER.VARIENT", "base"]),
            r"MODEL\.TOPFORMER\.VARIENT.*did you mean 'MODEL\.TOPFORMER\.VARIANT'",
        ),
        (
            lambda: topformer_d2.get_config("seg_topformer_t", ["SOLVER.BASE_LR"]),
            "command line",
        ),
        (lambda: load_config("nowhere.yaml"), r"nowhere\.yaml does not exist"),
    ],
    ids=["name", "key", "odd", "file"],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_unknown_key_in_a_file_names_file_and_key(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("VERSION: 2\nSOLVER:\n  BASE_LRR: 1.0\n")
    with pytest.raises(InputError, match=r"my\.yaml.*SOLVER\.BASE_LRR.*'SOLVER\.BASE_LR'"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "my.yaml"), ("_BASE_: gone.yaml", "gone.yaml"), ("- 1", "my.yaml")],
    ids=["syntax", "base", "list"],
)
def test_files_that_are_no_config_are_named(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        load_config(str(path))
