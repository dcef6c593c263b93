"""Say in one screen what is installed, which datasets are here, and how to fix what is wrong.

  topformer doctor

Exit status 1 when training could not start.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
import warnings
from types import ModuleType

from ..errors import shown
from .parsing import Parser

INSTALL_DETECTRON2 = "topformer install-detectron2"
PAIR = "pip install --force-reinstall torch torchvision"
# pip's names of modules that are called otherwise.
PACKAGES = {"PIL": "pillow", "cv2": "opencv-python-headless"}


def make_parser() -> Parser:
    """`topformer doctor` takes no arguments."""
    return Parser(__doc__)


def run(args: argparse.Namespace, parser: Parser) -> int:
    """The exit status: 1 when training could not start."""
    doctor = Doctor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doctor.check_python()
        doctor.check_torch()
        doctor.check_detectron2()
        doctor.check_rest()
        doctor.check_datasets()
    wrong = doctor.failures
    print(f"\n{f'{wrong} problems: training cannot start' if wrong else 'training can start'}")
    return 1 if wrong else 0


class Doctor:
    """Prints a line for each thing that it looks at, and counts what is wrong."""

    def __init__(self) -> None:
        self.failures = 0

    def report(self, status: str, name: str, detail: str, fix: str = "") -> None:
        """Print one line, and the fix below it."""
        self.failures += status == "FAIL"
        print(f"[{status:^4}] {name:<12} {detail}")
        if fix:
            print(f"{'':20}-> {fix}")

    def try_import(self, name: str, fix: str = "") -> ModuleType | None:
        """The module, or None after a line that says how to get it."""
        try:
            return importlib.import_module(name)
        except Exception as e:  # a broken installation raises anything
            fix = fix or f"pip install {PACKAGES.get(name, name)}"
            found = f"cannot be imported: {type(e).__name__}: {e}".splitlines()[0]
            self.report("FAIL", name, found, fix)
            return None

    def check_python(self) -> None:
        ok = sys.version_info >= (3, 10)
        fix = "" if ok else "Python 3.10 or newer is needed"
        self.report("ok" if ok else "FAIL", "python", platform.python_version(), fix)

    def check_torch(self) -> None:
        torch = self.try_import("torch")
        if torch is None:
            return
        self.report("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")
        if torch.cuda.is_available():
            names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
            self.report("ok", "gpu", f"{torch.cuda.device_count()} x {', '.join(names)}")
        else:
            built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
            self.report(
                "ok", "gpu", f"none in use (torch is built for {built}): the CPU does the work"
            )
        torchvision = self.try_import("torchvision", PAIR)
        if torchvision is None:
            return
        version = torchvision.__version__
        fix = f"install torch and torchvision as a pair: {PAIR}"
        if not torch_fits_torchvision(torch.__version__):
            self.report("FAIL", "torchvision", f"{version} wants another torch", fix)
            return
        try:
            boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 1, 10, 10], [20.0, 20, 30, 30]])
            kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
            assert kept == [0, 2], f"NMS kept {kept} instead of [0, 2]"
        except Exception as e:
            self.report("FAIL", "torchvision", f"{version}: NMS fails: {e}".splitlines()[0], fix)
            return
        self.report("ok", "torchvision", f"{version}, fits torch, its compiled NMS works")

    def check_detectron2(self) -> None:
        detectron2 = self.try_import("detectron2", INSTALL_DETECTRON2)
        if detectron2 is None:
            return
        try:
            version = importlib.metadata.version("detectron2")
        except importlib.metadata.PackageNotFoundError:
            version = f"{detectron2.__version__}, not installed by pip"
        try:
            importlib.import_module("detectron2._C")
            origin = "with compiled operators"
        except ImportError:
            pure = "the pure-Python wheel of topformer install-detectron2"
            origin = pure if version.endswith("+pure") else "no compiled operators"
        self.report("ok", "detectron2", f"{version} ({origin})")
        print(f"{'':20}{os.path.dirname(detectron2.__file__)}")

    def check_rest(self) -> None:
        for name, module in (("numpy", "numpy"), ("pillow", "PIL"), ("opencv", "cv2")):
            if found := self.try_import(module):
                self.report("ok", name, found.__version__)
        for module in (
            "faster_coco_eval",
            "fvcore",
            "iopath",
            "pycocotools",
            "safetensors",
            "tabulate",
            "tensorboard",
        ):
            self.try_import(module)

    def check_datasets(self) -> None:
        try:
            from detectron2.data import DatasetCatalog, MetadataCatalog

            import topformer_d2
            from topformer_d2.data.builtin import datasets_root
            from topformer_d2.data.registered import dataset_paths, missing_paths
            from topformer_d2.native.library import native_library, native_status
        except Exception as e:
            fix = INSTALL_DETECTRON2
            self.report("FAIL", "topformer_d2", f"cannot be imported: {e}".splitlines()[0], fix)
            return
        self.report("ok", "topformer_d2", topformer_d2.__version__)
        fix = "" if native_library() else "label maps take longer; install a C compiler, then again"
        self.report("none" if fix else "ok", "label maps", native_status(), fix)
        origin = "DETECTRON2_DATASETS" if "DETECTRON2_DATASETS" in os.environ else "default"
        print(f"\ndatasets below {shown(datasets_root())} ({origin})")
        present: dict[str, list[str]] = {}  # by the command that prepares them
        absent: dict[str, list[str]] = {}
        others: dict[str, list[str]] = {}  # top folder: Detectron2's own datasets that need it
        for name in sorted(DatasetCatalog.list()):
            command = MetadataCatalog.get(name).get("prepare_command")
            missing = missing_paths(name)
            if dataset_paths(name) and not missing:
                present.setdefault(command, []).append(name)
            elif command:
                absent.setdefault(command, []).append(name)
            else:
                paths = missing or [""]
                top = os.path.relpath(paths[0], datasets_root()).split(os.sep)[0]
                others.setdefault(top, []).append(name)
        for names in present.values():
            self.report("ok", "present", ", ".join(names))
        for command, names in absent.items():
            path = shown(missing_paths(names[0])[0])
            self.report("none", some(names), f"expected at {path}", command)
        for top, names in others.items():
            path = shown(os.path.join(datasets_root(), top))
            self.report("none", some(names), f"expected below {path}")
        print(f"{'':20}-> topformer data prepare --help has examples")


def torch_fits_torchvision(torch_version: str) -> bool:
    """Whether torch is a version that torchvision's metadata asks for."""
    from packaging.requirements import Requirement

    try:
        asked = map(Requirement, importlib.metadata.requires("torchvision") or [])
    except importlib.metadata.PackageNotFoundError:
        return True  # built in place; the NMS call decides
    public = torch_version.split("+")[0]
    return all(r.specifier.contains(public, True) for r in asked if r.name == "torch")


def some(names: list[str]) -> str:
    """The first of `names` and how many there are beside it."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
