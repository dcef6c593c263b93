"""Writing OpenVINO's files."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from ..inference.export_info import METADATA_KEY, ExportInfo
from ..inference.extras import import_extra
from .onnx import trace


def write_openvino(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path` (.xml) and, beside it, its weights (.bin), with `info` inside.

    By way of ONNX, so that both formats hold one graph.
    """
    openvino = import_extra("openvino")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        traced = Path(folder) / "traced.onnx"
        traced.write_bytes(trace(network, info))
        model = openvino.convert_model(traced)
        model.set_rt_info(info.to_json(), METADATA_KEY)
        openvino.save_model(model, path, compress_to_fp16=False)
