"""The compiled C files of the checkout, for tests."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from topformer_d2.native.library import SOURCES, native_library, sources_digest

_MADE = tempfile.TemporaryDirectory(prefix="topformer_d2_native_")


@functools.cache
def compiled_folder() -> Path | None:
    """Where a library of these C files is, compiled here if need be; None without a compiler."""
    if native_library() is not None:
        return SOURCES
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    digest = f'-DTOPFORMER_DIGEST="{sources_digest(SOURCES)}"'
    command = [compiler, "-std=c99", "-O3", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    files = sorted(SOURCES.glob("*.c"))
    output = Path(_MADE.name) / "_native.so"
    subprocess.run([*command, digest, *files, "-lm", "-o", output], check=True)
    return output.parent
