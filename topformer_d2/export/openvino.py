"""Writing OpenVINO's files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..files import folder_beside
from ..inference.checksum import CHECKSUM_KEY, PLACEHOLDER, seal
from ..inference.explanation import as_text, explain
from ..inference.export_info import METADATA_KEY, ExportInfo
from ..inference.extras import import_extra
from .onnx import trace


def write_openvino(network: nn.Module, info: ExportInfo, path: Path) -> None:
    """Write `network` to `path` (.xml) and, beside it, its weights (.bin), with `info` inside.

    By way of ONNX, so that both formats hold one graph.
    """
    openvino = import_extra("openvino")
    with folder_beside(path) as folder:
        traced = folder / "traced.onnx"
        traced.write_bytes(trace(network, info))
        model = openvino.convert_model(traced)
        model.set_rt_info(info.to_json(), METADATA_KEY)
        model.set_rt_info(PLACEHOLDER, CHECKSUM_KEY)
        model.set_rt_info(as_text(explain(info)), f"{METADATA_KEY}_explanation")
        model.set_friendly_name(METADATA_KEY)
        openvino.save_model(model, path, compress_to_fp16=False)
        seal(path, path.with_suffix(".bin"))
