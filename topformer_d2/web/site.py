"""Writing a page with a model as a folder of static files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

from ..errors import InputError
from ..files import folder_beside, parse_json, read_bytes
from ..inference.export_info import ExportInfo

# What the page may load, and what makes it isolated from other sites, without which browsers give
# WebAssembly no threads. The page has the policy inside; the server and the service worker send
# all of them.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; img-src 'self' blob:; media-src 'self' blob:; style-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = Path(__file__).resolve().parent / "page"
_GENERATOR = "topformer web"
_LIST = "site.json"
_MOST_BYTES = 1 << 31
# Files that are loaded when they are needed; the others are at once.
_LATER = ("runtime/", "model.onnx")


def write_site(
    output: str | os.PathLike, model: str | Path, info: ExportInfo, title: str, runtime: Mapping
) -> int:
    """Write the page of a model, whole or not at all.

    Args:
        output: the folder. It may be missing, empty, or a page of this function, which is replaced.
        model: .onnx file that model_for_web accepts.
        info: what the file says of itself.
        title: of the page.
        runtime: the files of ONNX Runtime Web by name (runtime_files).

    Returns:
        the bytes of all files.

    Raises:
        InputError: the folder has other files, or is a file.
        OSError: it cannot be written, as on a full disk.
    """
    target = Path(os.path.realpath(output))
    check_site_folder(target)
    contents = _page_files(title, info) | {"model.onnx": read_bytes(str(model), most=_MOST_BYTES)}
    contents |= {f"runtime/{name}": content for name, content in runtime.items()}
    contents |= _generated(contents, info)
    with folder_beside(target) as folder:
        new, old = folder / "new", folder / "old"
        for name, content in contents.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        check_site_folder(target)  # which somebody may have written to since
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise
    return sum(map(len, contents.values()))


def check_site_folder(output: str | os.PathLike) -> None:
    """InputError where write_site would not write to this folder, as where it has other files."""
    target = Path(output)
    if target.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise InputError(
            f"`output` {output} is the working folder or above it, and would be replaced: name "
            "another one"
        )
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"`output` {output} is a file: name a folder")
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()}
    if not found:
        return
    known = _listed_files(target) if _LIST in found else set()
    strange = sorted(found - known)
    if not known or strange:
        name = strange[0] if strange else _LIST
        raise InputError(
            f"`output` {output} has files that are not of a page of `topformer web`, such as "
            f"{name}: name a new folder, or move them away"
        )


def _listed_files(folder: Path) -> set[str]:
    """The files of a page that was written to a folder; none where it is no such page."""
    try:
        found = parse_json(read_bytes(str(folder / _LIST), most=1 << 24), _LIST)
    except (ValueError, OSError):
        return set()
    if not isinstance(found, dict) or found.get("generator") != _GENERATOR:
        return set()
    names = found.get("files")
    return set(names) if isinstance(names, list) and all(map(_is_text, names)) else set()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _page_files(title: str, info: ExportInfo) -> dict[str, bytes]:
    """Those of the package, by their names in the site."""
    found = {
        path.relative_to(_PAGE).as_posix(): path.read_bytes()
        for path in sorted(_PAGE.rglob("*"))
        if path.is_file()
    }
    replaced = {"%POLICY%": POLICY, "%TITLE%": title, "%SUMMARY%": _summary(info)}
    page = found["index.html"].decode()
    for mark, text in replaced.items():
        page = page.replace(mark, escape(text, quote=True))
    return found | {"index.html": page.encode()}


def _summary(info: ExportInfo) -> str:
    """What the model finds, in a sentence."""
    pixels, objects = len(info.model.pixels.names), len(info.model.objects.names)
    parts = [f"gives each pixel one of {pixels} classes"] * bool(pixels)
    parts += [f"finds objects of {objects} classes"] * bool(objects)
    return f"It {' and '.join(parts)}."


def _generated(contents: Mapping[str, bytes], info: ExportInfo) -> dict[str, bytes]:
    """What is made of all other files: their list and the service worker's."""
    names = sorted([*contents, _LIST])
    site = {
        "generator": _GENERATOR,
        "files": names,
        "integrity": f"sha256-{base64.b64encode(_sha256(contents['model.onnx'])).decode()}",
        "model": json.loads(info.to_json()),
    }
    site_json = json.dumps(site).encode()
    digest = hashlib.sha256(site_json)
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + _sha256(contents[name]))
    kept = [name for name in names if name != "service_worker.js"]
    values = {
        "digest": digest.hexdigest(),
        "shell": [name for name in kept if not name.startswith(_LATER)],
        "files": kept,
        "headers": HEADERS,
    }
    script = contents["service_worker.js"].decode().replace("%SITE%", json.dumps(values))
    return {_LIST: site_json, "service_worker.js": script.encode()}


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
