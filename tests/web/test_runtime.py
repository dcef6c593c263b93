"""Where ONNX Runtime Web comes from: a folder, or npm, of the one version that is known."""

import io
import json
import subprocess
import tarfile

import pytest

from topformer_d2.errors import InputError
from topformer_d2.web import runtime
from topformer_d2.web.runtime import FILES, PACKAGE, VERSION, runtime_files

pytest.importorskip("onnxruntime", reason="the licences of its parts come from there")


def archive():
    """A package with FILES, as npm hands it out."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in (*FILES, "more.js"):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
    return content.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm: it writes what `npm["content"]` is, and counts."""
    state = {"content": archive(), "calls": [], "status": 0}
    monkeypatch.setattr(runtime, "SHA512", runtime._digest(state["content"]))
    monkeypatch.setattr(runtime.shutil, "which", lambda name: f"/there/{name}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(command, cwd, **_):
        state["calls"].append(command[1:])
        if not state["status"]:
            (cwd / f"{PACKAGE}-{VERSION}.tgz").write_bytes(state["content"])
        return subprocess.CompletedProcess(command, state["status"], "", "no network here")

    monkeypatch.setattr(runtime.subprocess, "run", run)
    return state


def check(found):
    assert all(found[name] == name.encode() for name in FILES)
    assert b"MIT License" in found["LICENSE.txt"] and "more.js" not in found


def test_npm_fetches_it_once(npm, tmp_path):
    check(runtime_files(None))
    check(runtime_files(None))
    assert npm["calls"] == [["pack", f"{PACKAGE}@{VERSION}", "--silent"]]
    assert [path.name for path in runtime.cache_folder().iterdir()] == [f"{PACKAGE}-{VERSION}.tgz"]


def test_another_package_is_not_used(npm):
    npm["content"] += b"changed"
    with pytest.raises(InputError, match="SHA-512"):
        runtime_files(None)
    assert list(runtime.cache_folder().iterdir()) == []
    kept = runtime.cache_folder() / f"{PACKAGE}-{VERSION}.tgz"
    kept.write_bytes(b"damaged")
    with pytest.raises(InputError, match=rf"{kept.name}.*SHA-512"):
        runtime_files(None)
    assert kept.read_bytes() == b"damaged"


def test_without_npm_or_network_the_command_is_named(npm, monkeypatch):
    npm["status"] = 1
    command = rf"`npm pack {PACKAGE}@{VERSION}`"
    with pytest.raises(InputError, match=rf"{command} failed \(no network here\).*`runtime`"):
        runtime_files(None)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=rf"{command}.*`runtime`"):
        runtime_files(None)


def test_a_folder_is_checked(tmp_path):
    folder = tmp_path / PACKAGE
    (folder / "dist").mkdir(parents=True)
    for name in FILES:
        (folder / "dist" / name).write_text(name)
    with pytest.raises(InputError, match=r"`runtime` .*package\.json"):
        runtime_files(str(folder))
    for values, reason in (
        ({"name": "another", "version": VERSION}, r"package\.json"),
        ({"name": PACKAGE, "version": "1.0.0"}, rf"1\.0\.0.*{VERSION}"),
    ):
        (folder / "package.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match=reason):
            runtime_files(str(folder))
    (folder / "package.json").write_text(json.dumps({"name": PACKAGE, "version": VERSION}))
    check(runtime_files(str(folder)))
    (folder / "dist" / FILES[2]).unlink()
    with pytest.raises(InputError, match=FILES[2]):
        runtime_files(str(folder))
