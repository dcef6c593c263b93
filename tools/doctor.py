#!/usr/bin/env python
"""Say in one screen what is installed, which datasets are here, and how to fix what is wrong.

Exit status 1 when training could not start.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
import warnings

warnings.filterwarnings("ignore")

INSTALL = "make env, or: pip install -r requirements.lock"
INSTALL_DETECTRON2 = "python tools/install_detectron2.py"

failures = 0


def report(status: str, name: str, detail: str, fix: str = "") -> None:
    """Print one line, and the fix below it."""
    global failures
    failures += status == "FAIL"
    print(f"[{status:^4}] {name:<12} {detail}")
    if fix:
        print(f"{'':20}-> {fix}")


def try_import(name: str, fix: str = INSTALL):
    """The module, or None after a line that says how to get it."""
    try:
        return importlib.import_module(name)
    except Exception as e:  # a broken installation raises anything
        report("FAIL", name, f"cannot be imported: {type(e).__name__}: {e}".splitlines()[0], fix)
        return None


def check_python() -> None:
    ok = sys.version_info >= (3, 10)
    fix = "" if ok else "Python 3.10 or newer is needed"
    report("ok" if ok else "FAIL", "python", platform.python_version(), fix)


def check_torch() -> None:
    torch = try_import("torch")
    if torch is None:
        return
    report("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        report("ok", "gpu", f"{torch.cuda.device_count()} x {', '.join(names)}")
    else:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        report("ok", "gpu", f"none in use (torch is built for {built}): the CPU does the work")
    torchvision = try_import("torchvision", f"a torchvision made for this torch; {INSTALL}")
    if torchvision is None:
        return
    version = torchvision.__version__
    fix = f"install torch and torchvision as a pair: {INSTALL}"
    if not torch_fits_torchvision(torch.__version__):
        report("FAIL", "torchvision", f"{version} wants another torch", fix)
        return
    try:
        boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 1, 10, 10], [20.0, 20, 30, 30]])
        kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
        assert kept == [0, 2], f"NMS kept {kept} instead of [0, 2]"
    except Exception as e:
        report("FAIL", "torchvision", f"{version}: NMS fails: {e}".splitlines()[0], fix)
        return
    report("ok", "torchvision", f"{version}, fits torch, its compiled NMS works")


def torch_fits_torchvision(torch_version: str) -> bool:
    """Whether torch is a version that torchvision's metadata asks for."""
    from packaging.requirements import Requirement

    try:
        asked = map(Requirement, importlib.metadata.requires("torchvision") or [])
    except importlib.metadata.PackageNotFoundError:
        return True  # built in place; the NMS call decides
    public = torch_version.split("+")[0]
    return all(r.specifier.contains(public, True) for r in asked if r.name == "torch")


def check_detectron2() -> None:
    detectron2 = try_import("detectron2", INSTALL_DETECTRON2)
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
        pure = "the pure-Python wheel of tools/install_detectron2.py"
        origin = pure if version.endswith("+pure") else "no compiled operators"
    report("ok", "detectron2", f"{version} ({origin})")
    print(f"{'':20}{os.path.dirname(detectron2.__file__)}")


def check_rest() -> None:
    for name, module in (("numpy", "numpy"), ("pillow", "PIL"), ("opencv", "cv2")):
        if found := try_import(module):
            report("ok", name, found.__version__)
    for module in (
        "faster_coco_eval",
        "fvcore",
        "iopath",
        "pycocotools",
        "safetensors",
        "tabulate",
        "tensorboard",
    ):
        try_import(module)


def some(names: list[str]) -> str:
    """The first of `names` and how many there are beside it."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def check_datasets() -> None:
    try:
        from detectron2.data import DatasetCatalog, MetadataCatalog

        import topformer_d2
        from topformer_d2.data.builtin import datasets_root
        from topformer_d2.data.checks import dataset_paths, missing_paths
        from topformer_d2.errors import shown
    except Exception as e:
        fix = f"pip install -e . and {INSTALL_DETECTRON2}"
        report("FAIL", "topformer_d2", f"cannot be imported: {e}".splitlines()[0], fix)
        return
    report("ok", "topformer_d2", topformer_d2.__version__)
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
        report("ok", "present", ", ".join(names))
    for command, names in absent.items():
        path = shown(missing_paths(names[0])[0])
        report("none", some(names), f"expected at {path}", command)
    for top, names in others.items():
        path = shown(os.path.join(datasets_root(), top))
        report("none", some(names), f"expected below {path}")
    print(f"{'':20}-> datasets/README.md has the layouts")


def main() -> None:
    check_python()
    check_torch()
    check_detectron2()
    check_rest()
    check_datasets()
    verdict = f"{failures} problems: training cannot start" if failures else "training can start"
    print(f"\n{verdict}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # its reader has left, as `head -1` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
