"""The formats of exported files: a module each, which defines its FORMAT."""

from pathlib import Path

from . import coreml, executorch, litert, mnn, ncnn, onnx, openvino
from .base import ExportFormat, Session, import_extra

# By name. A new format is a module and its entry here.
FORMATS = {
    module.FORMAT.name: module.FORMAT
    for module in (onnx, openvino, ncnn, mnn, litert, executorch, coreml)
}

__all__ = [
    "FORMATS",
    "ExportFormat",
    "Session",
    "files_of",
    "import_extra",
    "of_runtime",
    "runtimes_of",
]


def runtimes_of(extension: str) -> tuple[str, ...]:
    """The runtimes that open files of an extension such as ".onnx", its own format's first."""
    own_first = sorted(FORMATS.values(), key=lambda each: each.extension != extension)
    return tuple(each.runtime for each in own_first if extension in each.reads)


def of_runtime(runtime: str) -> ExportFormat:
    """The format that a runtime is made for."""
    return next(each for each in FORMATS.values() if each.runtime == runtime)


def files_of(path: Path) -> list[Path]:
    """All files of the exported model at `path`, sorted: also those beside it, or in its folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    extension = path.suffix.lower()
    beside = (each.beside for each in FORMATS.values() if each.extension == extension)
    others = (path.with_suffix(each) for each in next(beside, ()))
    return sorted([path, *(file for file in others if file.exists())])
