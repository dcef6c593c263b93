"""Damaged and hostile files through the entries that users run."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.child import Outcome, Task
from tests.faults.mutations import hostile_json, mutate_bytes
from tests.faults.world import CONFIG, SMALL, World, call_tool

# (seed, world) -> the task.
Maker = Callable[[int, World], Task]


class _Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, target: str):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def _predict(model: str, image: object, out: Path) -> Callable[[], object]:
    return call_tool("predict", "--model", model, "--input", image, "--output", out / "out")


def _judged(run: Callable[[], object], out: Path, note: str = "") -> Task:
    """The task, and whether it ended rightly and ran no code."""

    def check(outcome: Outcome) -> str:
        canary = out / "canary"
        if canary.exists():
            return f"code was run{note}"
        left = [path.name for path in out.rglob("*.partial")]
        fault = outcome.fault()
        if not fault and left:
            fault = f"left behind: {left}"
        return f"{fault}{note}" if fault else ""

    return Task(run, check)


def image(seed: int, world: World) -> Task:
    """A damaged image among whole ones: the others are done."""
    rng, out = random.Random(seed), world.fresh(f"image {seed}")
    folder = out / "in"
    shutil.copytree(world.images, folder)
    source = rng.choice(sorted(folder.iterdir()))
    suffix = rng.choice([".png", ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".gif"])
    content = _encoded(source, suffix) if suffix != ".png" else source.read_bytes()
    target = folder / f"bad{suffix}"
    target.write_bytes(mutate_bytes(content, rng))
    task = _judged(_predict(world.onnx, folder, out), out)

    def check(outcome: Outcome) -> str:
        done = len(list((out / "out").glob("?_label.png")))
        return task.check(outcome) or ("" if done == 4 else f"{done} of 4 whole images were done")

    return Task(task.run, check)


def _encoded(source: Path, suffix: str) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.open(source).save(file, {".jpg": "jpeg", ".tif": "tiff"}.get(suffix, suffix[1:]))
    return file.getvalue()


def label(seed: int, world: World) -> Task:
    """A damaged label PNG, in training."""
    rng, out = random.Random(seed), world.fresh(f"label {seed}")
    labels = shutil.copytree(world.labels, out / "labels")
    victim = rng.choice(sorted(Path(labels).iterdir()))
    victim.write_bytes(mutate_bytes(victim.read_bytes(), rng))
    return _judged(_train(_own_data(out, world, LABELS=labels), out), out)


def coco_json(seed: int, world: World) -> Task:
    """A changed COCO JSON, in a training of one iteration with its evaluation."""
    rng, out = random.Random(seed), world.fresh(f"json {seed}")
    file = out / "boxes.json"
    file.write_bytes(hostile_json(json.loads(world.boxes.read_text()), rng))
    return _judged(_train(_own_data(out, world, BOXES=file), out), out)


def classes_file(seed: int, world: World) -> Task:
    """A damaged file of class names."""
    rng, out = random.Random(seed), world.fresh(f"classes {seed}")
    file = out / "classes.txt"
    file.write_bytes(mutate_bytes(world.classes.read_bytes() * 3, rng))
    return _judged(_train(_own_data(out, world, CLASSES=file), out), out)


def yaml_config(seed: int, world: World) -> Task:
    """A damaged config, or one with a command in it, itself or in its base."""
    rng, out = random.Random(seed), world.fresh(f"yaml {seed}")
    text = Path(_own_data(out, world)).read_bytes()
    file, command = out / "x.yaml", f"touch {out / 'canary'}"
    kind = rng.choice(["bytes"] * 4 + ["code", "base", "alias", "value"])
    if kind in ("code", "base"):
        tag = rng.choice(["object/apply:os.system", "object/new:os.system"])
        bad = f'MODEL: !!python/{tag} ["{command}"]\n'.encode()
        (out / "base.yaml").write_bytes(bad)
        file.write_bytes(bad + text if kind == "code" else b"_BASE_: base.yaml\n")
    elif kind == "alias":
        lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 12)]
        file.write_text("\n".join(lines))
    elif kind == "value":
        file.write_text(rng.choice(["", "3", "[]", "null", "x", "{", "MODEL: 3", "SOLVER: []"]))
    else:
        file.write_bytes(mutate_bytes(text, rng))
    return _judged(_train(str(file), out), out)


def _own_data(out: Path, world: World, **files: object) -> str:
    """A config with the user's own data, some of its files replaced; gives its path."""
    paths = {"IMAGES": world.images, "LABELS": world.labels, "CLASSES": world.classes}
    paths |= {"BOXES": world.boxes, **files}
    entry = "".join(f"      {key}: {path}\n" for key, path in paths.items())
    small = ", ".join(f"{v}" for v in (64, 64))
    config = out / "own.yaml"
    config.write_text(
        f"_BASE_: {CONFIG}\nDATASETS:\n  TRAIN: ('own',)\n  TEST: ('own',)\n"
        f"  FOLDERS:\n    own:\n{entry}INPUT:\n  CROP:\n    SIZE: [{small}]\n"
    )
    return str(config)


def _train(config: str, out: Path, *opts: str) -> Callable[[], object]:
    return call_tool(
        *("train_net", "--config-file", config, *SMALL, "SOLVER.MAX_ITER", "1"),
        *("OUTPUT_DIR", out / "run", *opts),
    )


def weights(seed: int, world: World) -> Task:
    """A damaged weights file, or a pickle with a command in it."""
    rng, out = random.Random(seed), world.fresh(f"weights {seed}")
    source = Path(rng.choice([world.weights, world.safetensors]))
    file = out / f"bad{source.suffix}"
    if rng.random() < 0.25:
        file = out / rng.choice(["bad.pth", "bad.pkl", "bad.pt"])
        payload = _Payload(str(out / "canary"))
        file.write_bytes(pickle.dumps({"model": payload}, protocol=rng.choice([2, 4])))
    else:
        file.write_bytes(mutate_bytes(source.read_bytes(), rng))
    tool = call_tool(
        *("predict", "--config-file", CONFIG, "--weights", file),
        *("--input", world.images / "0.png", "--output", out / "out", *SMALL),
    )
    return _must_refuse(tool, out, expected=not _same_tensors(source, file))


def _same_tensors(source: Path, file: Path) -> bool:
    """Whether the damage is in what has no meaning, such as the dates of a .pth file's parts."""
    from topformer_d2.checkpoint import read_weights
    from topformer_d2.errors import InputError

    try:
        given = read_weights(str(file))
    except InputError:
        return False
    whole = read_weights(str(source))
    return given.keys() == whole.keys() and all(given[k].equal(whole[k]) for k in whole)


def onnx_file(seed: int, world: World) -> Task:
    """A damaged ONNX file."""
    rng, out = random.Random(seed), world.fresh(f"onnx {seed}")
    file = out / "bad.onnx"
    content = Path(world.onnx).read_bytes()
    file.write_bytes(mutate_bytes(content, rng))
    whole = file.read_bytes() == content
    return _must_refuse(_predict(file, world.images / "0.png", out), out, expected=not whole)


def description(seed: int, world: World) -> Task:
    """An ONNX file whose description of itself has been changed."""
    rng, out = random.Random(seed), world.fresh(f"description {seed}")

    def run() -> object:
        import onnx

        model = onnx.load(world.onnx)
        for entry in model.metadata_props:
            if entry.key == "topformer_d2":
                changed = hostile_json(json.loads(entry.value), rng)
                entry.value = changed.decode(errors="replace")
        onnx.save(model, out / "bad.onnx")
        return _predict(out / "bad.onnx", world.images / "0.png", out)()

    return _judged(run, out)


def openvino_pair(seed: int, world: World) -> Task:
    """A damaged .xml, or a damaged .bin beside it."""
    rng, out = random.Random(seed), world.fresh(f"openvino {seed}")
    damaged = rng.choice([".xml", ".bin"])
    whole = True
    for suffix in (".xml", ".bin"):
        content = Path(world.openvino).with_suffix(suffix).read_bytes()
        bad = mutate_bytes(content, rng) if suffix == damaged else content
        whole &= bad == content
        (out / f"bad{suffix}").write_bytes(bad)
    tool = _predict(out / "bad.xml", world.images / "0.png", out)
    # Spaces of an .xml may change without a meaning.
    return _must_refuse(tool, out, expected=damaged == ".bin" and not whole)


def _must_refuse(run: Callable[[], object], out: Path, *, expected: bool) -> Task:
    """As _judged; where the file is damaged in its weights, "done" is wrong as well."""
    task = _judged(run, out)

    def check(outcome: Outcome) -> str:
        done = expected and outcome.status == 0
        return task.check(outcome) or ("the damaged file was used" if done else "")

    return Task(run, check)


def archive(seed: int, world: World) -> Task:
    """A damaged .zip in preparation; nothing is written outside its folder."""
    rng, out = random.Random(seed), world.fresh(f"archive {seed}")
    file = out / "bad.zip"
    file.write_bytes(mutate_bytes(world.archive.read_bytes(), rng))
    return _judged(call_tool("prepare_camvid", "--source", file, "--root", out / "root"), out)


def voc_xml(seed: int, world: World) -> Task:
    """A damaged VOC XML in preparation."""
    rng, out = random.Random(seed), world.fresh(f"voc {seed}")
    source = Path(shutil.copytree(world.voc, out / "voc"))
    victim = rng.choice(sorted((source / "Annotations").iterdir()))
    victim.write_bytes(mutate_bytes(victim.read_bytes(), rng))
    return _judged(
        call_tool(
            *("prepare_voc_detection", "--source", source, "--name", "own"),
            *("--root", out / "root"),
        ),
        out,
    )


def video(seed: int, world: World) -> Task:
    """A damaged video: what can be read is written, and status 0 is of all frames."""
    rng, out = random.Random(seed), world.fresh(f"video {seed}")
    file = out / "bad.avi"
    file.write_bytes(mutate_bytes(Path(world.video).read_bytes(), rng))
    target = out / "out.mp4"
    return _judged(
        call_tool("predict", "--model", world.onnx, "--input", file, "--output", target), out
    )


KINDS: dict[str, Maker] = {
    "image": image,
    "label PNG": label,
    "COCO JSON": coco_json,
    "classes file": classes_file,
    "config": yaml_config,
    "weights": weights,
    "ONNX file": onnx_file,
    "description in an ONNX file": description,
    "OpenVINO pair": openvino_pair,
    "archive": archive,
    "VOC XML": voc_xml,
    "video": video,
}
