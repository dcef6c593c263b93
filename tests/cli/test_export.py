"""`topformer export`."""

import pytest

from tests.helpers import REPOSITORY, topformer

pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime")
CONFIG = REPOSITORY / "configs" / "seg_topformer_t_synthetic.yaml"


def export(*args, config=CONFIG):
    return topformer("export", "--format", "onnx", "--config-file", config, *args)


def test_writes_a_file_and_says_how_close_it_is(tmp_path):
    import torch
    from detectron2.modeling import build_model

    from topformer_d2 import get_config
    from topformer_d2.checkpoint import save_state_dict

    weights, path = tmp_path / "weights.pth", tmp_path / "exported" / "model.onnx"
    torch.manual_seed(0)
    model = build_model(get_config(CONFIG.stem, ["MODEL.DEVICE", "cpu"]))
    save_state_dict(model.state_dict(), str(weights))
    result = export("--weights", weights, "--output", path, "--size", 64, 80)
    assert result.returncode == 0, result.stderr
    assert "logits: differs by " in result.stdout and f"wrote {path}" in result.stdout
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    for words, message in (
        (("--format", "ncnn", "--labels"), "--labels does not go with --format 'ncnn'"),
        (("--format", "ncnn"), "give --size"),
        (("--precision", "float16"), "--precision is 'float16'; --format 'onnx' has float32"),
    ):
        result = export("--weights", weights, "--output", path, *words)
        assert result.returncode == 1 and message in result.stderr
    # The loader's own message, without a traceback.
    result = export("--weights", tmp_path / "none.pth", "--output", path)
    assert result.returncode == 1 and "none.pth does not exist" in result.stderr
    assert "Traceback" not in result.stderr
