"""ONNX Runtime Web, which the page runs the network in: from a folder, or from npm."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

from ..errors import InputError, cut, shown
from ..files import folder_beside, read_bytes, read_json, write_beside
from ..inference.formats import import_extra
from ..logs import get_logger

logger = get_logger(__name__)

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# Of the package as npm hands it out.
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# In its folder dist/: for the CPU, and for WebGPU.
FILES = (
    *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    *("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs"),
    "ort-wasm-simd-threaded.asyncify.wasm",
)
_COMMAND = f"npm pack {PACKAGE}@{VERSION}"
_MOST_BYTES = 1 << 28
_PATIENCE = 900  # seconds for 33 MB


def runtime_files(folder: str | None) -> dict[str, bytes]:
    """The files of ONNX Runtime Web by name, FILES, with its licence and those of its parts.

    Args:
        folder: of the unpacked package, such as node_modules/onnxruntime-web; None = npm fetches
            it, once: it is kept in a cache folder.

    Raises:
        InputError: the folder is not of this version, or the package cannot be fetched, or is
            another than the one that is known.
    """
    if folder is not None:
        return _from_folder(Path(folder)) | _licences()
    kept = cache_folder() / f"{PACKAGE}-{VERSION}.tgz"
    if not kept.is_file():
        _fetch(kept)
    content = read_bytes(str(kept), most=_MOST_BYTES)
    if _digest(content) != SHA512:
        raise InputError(
            f"{kept} is not {PACKAGE} {VERSION} (its SHA-512 is another): remove it, and it is "
            "fetched again"
        )
    return _unpack(content) | _licences()


def _licences() -> dict[str, bytes]:
    """The archive has none: ONNX Runtime's, and what its package for Python says of its parts."""
    licence = (Path(__file__).parent / "onnxruntime_licence.txt").read_bytes()
    found = {"LICENSE.txt": licence}
    notices = Path(import_extra("onnxruntime").__file__).parent / "ThirdPartyNotices.txt"
    if notices.is_file():
        found[notices.name] = notices.read_bytes()
    return found


def cache_folder() -> Path:
    """Where the package is kept: below XDG_CACHE_HOME, or the system's folder for such files."""
    variables = ("XDG_CACHE_HOME", *(["LOCALAPPDATA"] if sys.platform == "win32" else []))
    named = next(filter(None, map(os.environ.get, variables)), None)
    if named is None:
        parts = ("Library", "Caches") if sys.platform == "darwin" else (".cache",)
        try:
            named = os.path.join(Path.home(), *parts)
        except RuntimeError as e:  # a user without a home
            raise InputError(f"{PACKAGE} is kept below XDG_CACHE_HOME: set it ({e})") from e
    return Path(named) / "topformer_d2"


def _from_folder(folder: Path) -> dict[str, bytes]:
    description = folder / "package.json"
    found = read_json(str(description)) if description.is_file() else {}
    if not isinstance(found, dict) or found.get("name") != PACKAGE:
        raise InputError(
            f"`runtime` {folder} is not the folder of {PACKAGE} with its package.json and dist/: "
            f"`{_COMMAND}` fetches it as an archive, to be unpacked"
        )
    if found.get("version") != VERSION:
        raise InputError(
            f"`runtime` {folder} has {PACKAGE} {cut(str(found.get('version')), 40)}, and the page "
            f"is made for {VERSION}: `{_COMMAND}` fetches it"
        )
    missing = [name for name in FILES if not (folder / "dist" / name).is_file()]
    if missing:
        raise InputError(f"`runtime` {folder} lacks dist/{missing[0]}: unpack it again")
    return {name: read_bytes(str(folder / "dist" / name), most=_MOST_BYTES) for name in FILES}


def _fetch(target: Path) -> None:
    """Have npm write the archive to `target`."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"the page needs {PACKAGE} {VERSION}, and npm, which fetches it, is not installed: "
            f"install npm, or type `{_COMMAND}` where there is one, unpack the archive, and name "
            "its folder as `runtime`"
        )
    logger.info("%s: 33 MB, once", _COMMAND)
    with folder_beside(target) as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_PATIENCE,
            )
        except subprocess.TimeoutExpired as e:
            raise InputError(f"`{_COMMAND}` takes more than {_PATIENCE} s: try it again") from e
        archive = folder / f"{PACKAGE}-{VERSION}.tgz"
        if done.returncode or not archive.is_file():
            raise InputError(
                f"`{_COMMAND}` failed ({cut(done.stderr.strip() or 'no archive was written')}): "
                "type it where there is a network, unpack the archive, and name its folder as "
                "`runtime`"
            )
        content = read_bytes(str(archive), most=_MOST_BYTES)
        if _digest(content) != SHA512:
            raise InputError(
                f"what `{_COMMAND}` fetched is not the package that is known (its SHA-512 is "
                "another): it is not used"
            )
        write_beside(target, content)
    logger.info("kept as %s", shown(target))


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def _unpack(content: bytes) -> dict[str, bytes]:
    """FILES of the archive, whose digest is known."""
    with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as archive:
        found = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: file.read() for name, file in found.items()}
