"""Where results may be written."""

import pytest

from topformer_d2.data import outputs
from topformer_d2.errors import InputError


def test_a_device_is_not_tried_beside(monkeypatch):
    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", None)
    outputs.check_output("/dev/null", "--json")


def test_a_local_file_of_one_extension(tmp_path):
    outputs.check_local_output(str(tmp_path / "new" / "m.onnx"), "--output", ".onnx")
    assert (tmp_path / "new").is_dir()
    for path, message in (
        ("s3://bucket/m.onnx", "--output s3://bucket/m.onnx is a remote store's"),
        (str(tmp_path / "m.xml"), r"ends in \.onnx"),
    ):
        with pytest.raises(InputError, match=message):
            outputs.check_local_output(path, "--output", ".onnx")
