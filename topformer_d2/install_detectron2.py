"""Install Detectron2 v0.6 from PyPI as a pure-Python wheel; leave any importable Detectron2 alone.

No package index has Detectron2 under its own name, and building it needs a compiler. The source
distribution `pb1-detectron2` on PyPI holds the Python files of the official tag v0.6. This module
downloads it (pinned by digest), applies the changes that v0.6 needs on today's PyTorch, NumPy and
Pillow, builds a wheel named `detectron2` and installs it with the running interpreter's pip.

This file imports nothing of topformer_d2: tools/install_detectron2.py runs it by its path, before
anything is installed.

What stands in Detectron2's C++/CUDA sources (rotated boxes, the old deformable convolution, its
fast COCO evaluation) is not in that wheel, and nothing in topformer_d2 uses it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

SDIST_PROJECT = "pb1-detectron2"
SDIST_FILE = "pb1-detectron2-0.6.tar.gz"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
WHEEL_VERSION = "0.6+pure"


class Change(NamedTuple):
    """Replace `old` by `new` in `file`; `old` must occur exactly `count` times."""

    file: str
    old: str
    new: str
    count: int = 1  # type: ignore[assignment]  # a tuple has a method of this name


def _alias(file: str, name: str, new: str, count: int) -> Change:
    """A NumPy alias that is gone (np.bool, np.int, ...) becomes the builtin it stood for."""
    return Change(f"detectron2/{file}", f"np.{name}", new, count)


def _optional_ops(file: str) -> Change:
    return Change(
        f"detectron2/{file}",
        "from detectron2 import _C\n",
        "try:\n"
        "    from detectron2 import _C\n"
        "except ImportError:\n"
        "    from detectron2.layers.no_compiled_ops import _C\n",
    )


CHANGES = [
    Change("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),
    _alias("evaluation/sem_seg_evaluation.py", "int", "int", 2),
    _alias("evaluation/sem_seg_evaluation.py", "float", "float", 5),
    _alias("evaluation/pascal_voc_evaluation.py", "bool", "bool", 2),
    _alias("structures/masks.py", "bool", "bool", 3),
    _alias("data/build.py", "int", "int", 2),
    _alias("data/datasets/pascal_voc.py", "str", "str", 1),
    _alias("utils/visualizer.py", "bool", "bool", 3),
    _alias("utils/video_visualizer.py", "bool", "bool", 1),
    _optional_ops("layers/deform_conv.py"),
    _optional_ops("layers/rotated_boxes.py"),
    _optional_ops("layers/roi_align_rotated.py"),
    Change(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "try:\n"
        "    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:\n"
        "    COCOeval_opt = COCOeval\n",
    ),
    Change(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n    from .api import *\nexcept ImportError:  # it needs caffe2\n    pass\n",
    ),
    Change("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", ""),
    Change(
        "detectron2/model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )",
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
    ),
]

NO_COMPILED_OPS = '''\
class _NoCompiledOps:
    """Stands in for detectron2._C, which only a Detectron2 built from source has."""

    def __getattr__(self, name):
        raise ImportError(
            f"detectron2._C.{name} is a compiled operator, and this is the pure-Python wheel of "
            "Detectron2 v0.6. Build Detectron2 from source to use it."
        )


_C = _NoCompiledOps()
'''

# v0.6's own requirements less black (a pinned formatter) and the upper bound on iopath.
SETUP_PY = f"""\
from setuptools import find_packages, setup

PROJECTS = {{
    "detectron2.projects.point_rend": "projects/PointRend/point_rend",
    "detectron2.projects.deeplab": "projects/DeepLab/deeplab",
    "detectron2.projects.panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}}
setup(
    name="detectron2",
    version="{WHEEL_VERSION}",
    description="Detectron2 v0.6 without its compiled operators",
    url="https://github.com/facebookresearch/detectron2",
    license="Apache-2.0",
    python_requires=">=3.7",
    packages=find_packages(include=["detectron2", "detectron2.*"]) + list(PROJECTS),
    package_dir=PROJECTS,
    package_data={{"detectron2.model_zoo": ["configs/**/*"]}},
    install_requires=[
        "Pillow>=7.1", "matplotlib", "pycocotools>=2.0.2", "termcolor>=1.1", "yacs>=0.1.8",
        "tabulate", "cloudpickle", "tqdm>4.29.0", "tensorboard", "fvcore>=0.1.5,<0.1.6",
        "iopath>=0.1.7", "future", "pydot", "omegaconf>=2.1", "hydra-core>=1.1",
    ],
)
"""


def apply_changes(root: Path, changes: list[Change]) -> None:
    """Apply `changes` below `root`; nothing is written unless every one of them applies.

    Raises:
        RuntimeError: a file is missing, or a text does not occur exactly as often as expected.
    """
    texts: dict[Path, str] = {}
    for change in changes:
        path = root / change.file
        if path not in texts:
            if not path.is_file():
                raise RuntimeError(f"{change.file} is missing from the source distribution")
            texts[path] = path.read_text(encoding="utf-8")
        # Not inside a longer name: np.float must not match in np.float32.
        pattern = re.escape(change.old) + r"(?!\w)" if change.old[-1].isalnum() else None
        pattern = pattern or re.escape(change.old)
        # Its backslashes are no references to groups.
        replacement = change.new.replace("\\", r"\\")
        texts[path], found = re.subn(pattern, replacement, texts[path])
        if found != change.count:
            raise RuntimeError(
                f"{change.file}: expected {change.count} times, found {found} times: {change.old!r}"
            )
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def check_no_leftover(root: Path) -> None:
    """Raise RuntimeError where a NumPy or Pillow name that is gone is still used."""
    gone = re.compile(r"\bnp\.(bool|int|float|str|object)\b|\bImage\.LINEAR\b")
    for path in sorted((root / "detectron2").rglob("*.py")):
        if match := gone.search(path.read_text(encoding="utf-8")):
            raise RuntimeError(f"{path.relative_to(root)} still uses {match.group()}")


def download(folder: Path) -> Path:
    """Fetch the source distribution into `folder` and verify its SHA-256."""
    try:
        from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
    except ImportError:
        raise RuntimeError(
            "installing Detectron2 needs two small packages; run\n"
            f"  {sys.executable} -m pip install pypi-simple setuptools"
        ) from None
    target = folder / SDIST_FILE
    # The mirror that this variable names to pip serves this download too.
    with PyPISimple(os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT) as client:
        page = client.get_project_page(SDIST_PROJECT)
        package = next((p for p in page.packages if p.filename == SDIST_FILE), None)
        if package is None:
            raise RuntimeError(f"the package index lists no {SDIST_FILE}")
        client.download_package(package, target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise RuntimeError(f"{SDIST_FILE} has SHA-256 {digest}, expected {SDIST_SHA256}")
    return target


def build_wheel(sdist: Path, folder: Path) -> Path:
    """Unpack, change and build `sdist`; return the wheel's path in `folder`."""
    safely: dict[str, Any] = (
        {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    )  # Python >= 3.10.12
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **safely)
    root = folder / SDIST_FILE.removesuffix(".tar.gz")
    apply_changes(root, CHANGES)
    check_no_leftover(root)
    (root / "detectron2/layers/no_compiled_ops.py").write_text(NO_COMPILED_OPS, encoding="utf-8")
    (root / "setup.py").write_text(SETUP_PY, encoding="utf-8")
    (root / "setup.cfg").unlink()
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*wheel, str(root)], check=True)
    return next(folder.glob("detectron2-*.whl"))


def install(wheel_dir: Path | None = None) -> None:
    """Install Detectron2 with this interpreter's pip, unless one can be imported.

    Args:
        wheel_dir: where the wheel is kept instead of being installed.

    Raises:
        RuntimeError: the source distribution is not the one that is expected, or a package that
            this takes is missing.
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    if wheel_dir is None and (spec := importlib.util.find_spec("detectron2")):
        print(f"Detectron2 is already installed at {Path(spec.origin).parent}; left as it is.")
        return
    with tempfile.TemporaryDirectory() as temp:
        print(f"Detectron2: downloading {SDIST_FILE}, pinned by its SHA-256")
        wheel = build_wheel(download(Path(temp)), Path(temp))
        if wheel_dir is not None:
            wheel_dir.mkdir(parents=True, exist_ok=True)
            (wheel_dir / wheel.name).write_bytes(wheel.read_bytes())
            print(f"Detectron2: wrote {wheel_dir / wheel.name}")
            return
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", str(wheel)], check=True)
        print(f"Detectron2: installed {wheel.name}")
