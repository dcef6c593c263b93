"""Package metadata; tool settings live in pyproject.toml, exact versions in requirements.lock."""

import importlib.util
import re
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext, customize_compiler, new_compiler

ROOT = Path(__file__).parent
# The package cannot be imported here: PyTorch may not be installed yet.
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "topformer_d2/__init__.py").read_text())[1]
BASELINES = ["timm>=1.0", "transformers>=4.40"]  # backbones that the paper compares with
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "openvino>=2024.4"]
NCNN = ["ncnn>=1.0.20261020", "pnnx>=20261020"]
MNN = ["MNN>=3.6", "onnx>=1.16"]
LITERT = [
    "ai-edge-litert>=2.3,<2.4",
    "ai-edge-quantizer==0.10.*",
    "jax",
    "torchao>=0.17",
    "rich",
]
NATIVE = ROOT / "topformer_d2/native"


def native_extension() -> list[Extension]:
    """The C files as a library, if a C compiler is found; if not, the wheel is a pure one."""
    try:
        compiler = new_compiler()
        customize_compiler(compiler)
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder) / "trial.c"
            trial.write_text("#include <stdlib.h>\nint main(void) { return 0; }\n")
            compiler.compile([str(trial)], output_dir=folder)
    except Exception as e:  # each platform's tools raise their own
        print(f"no C compiler ({e}): topformer_d2 does all in Python", file=sys.stderr)
        return []
    spec = importlib.util.spec_from_file_location("library", NATIVE / "library.py")
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    is_msvc = compiler.compiler_type == "msvc"
    return [
        Extension(
            "topformer_d2.native._native",
            [f"topformer_d2/native/{path.name}" for path in sorted(NATIVE.glob("*.c"))],
            depends=[f"topformer_d2/native/{path.name}" for path in sorted(NATIVE.glob("*.h"))],
            define_macros=[("TOPFORMER_DIGEST", f'"{library.sources_digest(NATIVE)}"')],
            extra_compile_args=["/O2"] if is_msvc else ["-std=c99", "-O3"],
            libraries=[] if is_msvc else ["m"],
            export_symbols=re.findall(
                r"(topformer_\w+)\(", "".join(path.read_text() for path in NATIVE.glob("*.h"))
            ),
            optional=True,  # a failure is a warning
        )
    ]


class BuildNative(build_ext):
    """Of a library that ctypes opens, which is no module of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Without the version of Python."""
        return fullname.replace(".", "/") + (".pyd" if sys.platform == "win32" else ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Without a module's PyInit function."""
        return [*ext.export_symbols, "topformer_native_digest"]


class NativeWheel(bdist_wheel):
    """A wheel with the library, for any Python of the platform."""

    def get_tag(self) -> tuple[str, str, str]:
        tag = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


setup(
    name="topformer_d2",
    version=VERSION,
    description="TopFormer for mobile dense prediction on Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["topformer_d2", "topformer_d2.*"]), "topformer_d2.configs"],
    # configs/ stands beside the package in a checkout and inside it in a wheel.
    package_dir={"topformer_d2.configs": "configs"},
    ext_modules=native_extension(),
    cmdclass={"build_ext": BuildNative, "bdist_wheel": NativeWheel},
    package_data={
        "topformer_d2.configs": ["*.yaml", "base/*.yaml"],
        "topformer_d2": ["py.typed", "zoo/*"],
        "topformer_d2.analysis": ["*.json"],
        "topformer_d2.data.categories": ["*.json"],
        "topformer_d2.native": ["*.c", "*.h"],
        "topformer_d2.visualization.report": ["*.css", "*.js"],
        "topformer_d2.web": ["*.txt", "page/*", "page/scripts/*"],
    },
    entry_points={"console_scripts": ["topformer = topformer_d2.cli:main"]},
    # Detectron2 itself is missing on purpose: no index has it under that name.
    # `topformer install-detectron2` installs it; see README.md.
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "faster-coco-eval>=1.8",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "matplotlib>=3.6",
        "numpy>=1.26",
        "opencv-python-headless>=4.8",
        "pillow>=10",
        "pycocotools>=2.0.7",
        "safetensors>=0.4.3",
        "tabulate>=0.9",
        "tensorboard>=2.15",
        "tqdm>=4.65",
    ],
    extras_require={
        "baselines": BASELINES,
        "export": EXPORT,
        # Of further export formats.
        "ncnn": NCNN,
        "mnn": MNN,
        # A format each; not in "dev". litert-torch, which writes .tflite files, asks for older
        # versions than these have: it is installed without its dependencies (docs/formats.md).
        "litert": LITERT,
        "executorch": ["executorch>=1.5,<1.6"],
        "coreml": ["coremltools>=9.0; platform_system != 'Windows'"],
        # Not in "dev", nor in requirements.lock: both need opencv-python, which has the same files
        # as opencv-python-headless and, on a machine without a display's libraries, fails to load.
        "interop": ["sahi>=0.11.20", "supervision>=0.25"],
        # Not in "dev" either, for the same reason. ByteTrack has left supervision for trackers.
        "tracking": ["trackers>=2.1"],
        # Not in "dev": `topformer predict --engine ray`.
        "ray": ["ray[data]>=2.60"],
        # Not in requirements.lock: of LOGGERS, for those who keep their runs there.
        "loggers": ["mlflow>=2.10", "wandb>=0.17"],
        # Not in requirements.lock: `make docs` has an environment of its own.
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.7", "mkdocstrings[python]>=1.0", "ruff>=0.9"],
        "dev": [
            *BASELINES,
            *EXPORT,
            *NCNN,
            *MNN,
            "mypy>=1.15",
            "pytest>=8",
            "ruff>=0.9",
            "pypi-simple>=1.6",
            "scipy>=1.10",  # writes the tests' .mat files
            "fastapi>=0.115",  # docs/other_tools.md's service, and its test client
            "httpx>=0.27",
            "pytest-xdist>=3.6",
            # The model zoo of Detectron2's main branch imports pkg_resources, which 82 dropped.
            "setuptools>=77,<82",
        ],
    },
)
