"""Compile the label map and the boxes to WebAssembly: topformer_d2/web/page/decoder.wasm.

  python tools/decoder_wasm/build.py

It needs clang with the target wasm32, and wasm-ld (Debian: apt-get install clang lld). The module
has the digest of its sources inside; a test fails where they have been changed since.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent.parent / "topformer_d2"
TARGET = PACKAGE / "web" / "page" / "decoder.wasm"
_COMPILED = [PACKAGE / "native/label_map.c", PACKAGE / "native/boxes.c", HERE / "libc.c"]
_HEADERS = [*(PACKAGE / "native").glob("*.h"), *(HERE / "include").glob("*.h")]
_EXPORTS = (
    *("malloc", "topformer_decoder_digest"),
    *("topformer_label_plan_create", "topformer_label_map"),
    *("topformer_box_plan_create", "topformer_find_boxes"),
)
FLAGS = [
    *("--target=wasm32", "-std=c99", "-O3", "-msimd128", "-mbulk-memory"),
    # Otherwise its own functions would be recognised in libc.c, and call themselves.
    "-fno-builtin",
    *("-Wall", "-Wextra", "-Werror", "-nostdlib"),
    *("-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536"),
    *(f"-Wl,--export={name}" for name in _EXPORTS),
]


def sources_digest() -> str:
    """Of all files that are compiled, and of the flags."""
    digest = hashlib.sha256("\0".join(FLAGS).encode())
    for path in sorted([*_COMPILED, *_HEADERS]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def build(target: Path) -> None:
    """Write the module to `target`."""
    include = [f"-I{HERE / 'include'}", f"-I{PACKAGE / 'native'}"]
    digest = f'-DTOPFORMER_DIGEST="{sources_digest()}"'
    command = ["clang", *FLAGS, *include, digest, *map(str, _COMPILED), "-o", str(target)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    for tool in ("clang", "wasm-ld"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed; on Debian: apt-get install clang lld")
    build(TARGET)
    print(f"wrote {TARGET} ({TARGET.stat().st_size} bytes)")
