"""Each format's sample is detected by its format alone, and no damage to a sample crashes one."""

import copy
import json
import os
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.formats import test_coco_shapes as coco
from tests.data.formats import test_cvat as cvat
from tests.data.formats import test_label_studio as label_studio
from tests.data.formats import test_labelme as labelme
from tests.data.formats import test_supervisely as supervisely
from tests.data.formats import test_voc as voc
from topformer_d2.data.formats import coco_shapes as coco_shapes_module
from topformer_d2.data.formats import cvat as cvat_module
from topformer_d2.data.formats import label_studio as label_studio_module
from topformer_d2.data.formats import labelme as labelme_module
from topformer_d2.data.formats import supervisely as supervisely_module
from topformer_d2.data.formats import voc as voc_module
from topformer_d2.data.formats import yolo as yolo_module
from topformer_d2.data.formats.contract import Labelling
from topformer_d2.errors import InputError

FORMATS = {
    module.FORMAT.name: module.FORMAT
    for module in (
        coco_shapes_module,
        cvat_module,
        label_studio_module,
        labelme_module,
        supervisely_module,
        voc_module,
        yolo_module,
    )
}


def write_coco(folder):
    rle = {"size": [40, 60], "counts": coco.PACKED.decode()}
    annotations = [
        coco.ann(segmentation=[[0, 0, 9.5, 0, 9, 8]]),
        coco.ann(category_id=3, segmentation=rle, iscrowd=1),
        coco.ann(image_id=2, segmentation={"size": [40, 60], "counts": coco.runs(coco.MASK)}),
    ]
    (folder / "instances.json").write_text(json.dumps(coco.BASE | {"annotations": annotations}))
    return "instances.json"


def write_cvat(folder):
    (folder / "annotations.xml").write_text(cvat.document(cvat.SHAPES))
    return "annotations.xml"


def write_label_studio(folder):
    results = [
        label_studio.result("rectanglelabels", label_studio.BOX | {"rotation": 20}),
        label_studio.result("polygonlabels", {"points": [[0, 0], [50, 0], [50, 50.0]]}),
        label_studio.result("brushlabels", {"rle": label_studio.brush(label_studio.MASK)}, ["sky"]),
    ]
    (folder / "export.json").write_text(json.dumps([label_studio.task(results)]))
    return "export.json"


def write_labelme(folder):
    mask = labelme.png(np.ones((2, 2), bool))
    shapes = [
        labelme.shape("cat", labelme.GOOD, group_id=1),
        labelme.shape("cat", [[30, 20], [10, 5]], "rectangle", group_id=1),
        labelme.shape("sky", [[5, 10], [6, 11]], "mask", mask=mask),
    ]
    labelme.write(folder, "a.json", shapes)


def write_supervisely(folder):
    (folder / "meta.json").write_text(json.dumps(supervisely.META))
    objects = [
        supervisely.obj("polygon", exterior=supervisely.SQUARE, interior=[supervisely.HOLE]),
        supervisely.bitmap(),
    ]
    supervisely.write(folder / "ann", "a.jpg.json", *objects)


def write_voc(folder):
    voc.write(folder, "a.xml", voc.obj("cat", (1, 2, 11, 12), "<difficult>1</difficult>"))


def write_yolo(folder):
    (folder / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.5 0.1 0.5 0.6\n")
    (folder / "classes.txt").write_text("cat\ndog\n")


WRITERS = {
    "coco": write_coco,
    "cvat": write_cvat,
    "label_studio": write_label_studio,
    "labelme": write_labelme,
    "supervisely": write_supervisely,
    "voc": write_voc,
    "yolo": write_yolo,
}


def detected(path, images=""):
    return [name for name, each in FORMATS.items() if each.detect(str(path), str(images))]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("beside_images", [False, True])
def test_a_sample_is_of_one_format(tmp_path, name, beside_images):
    file = WRITERS[name](tmp_path)
    if beside_images:
        (tmp_path / "a.jpg").touch()
    images = tmp_path if beside_images else ""
    assert detected(tmp_path, images) == [name]
    if file:
        assert detected(tmp_path / file, images) == [name]
    assert FORMATS[name].read(str(tmp_path), str(images)).images


def test_what_is_no_dataset_is_of_no_format(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.xml").symlink_to(tmp_path / "loop.xml")
    os.mkfifo(tmp_path / "pipe.json")
    for name, content in {
        "a.json": b"{",
        "b.json": b"[" * 100_000,
        "c.json": b'{"shapes": [], "images": 3}',
        "d.json": b"",
        "a.xml": b"<annotations_",
        "b.xml": b"\xff\xfe\0",
        "a.yaml": b"MODEL: {MASK_ON: False}",
        "b.yaml": b"\xff",
        "c.yaml": b"names: [",
        "classes.txt": b"cat",
        "notes.txt": b"1 cat on a mat with 0 dogs",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert detected(tmp_path / name) == []
    for name in (".", "empty", "folder.json", "loop.xml", "pipe.json", "missing.json", "a\0.json"):
        assert detected(f"{tmp_path}/{name}") == []


def test_detection_of_a_large_folder_is_cheap(tmp_path):
    for i in range(300):
        (tmp_path / f"{i}.txt").touch()
    (tmp_path / "big.json").write_text('{"x": "' + "y" * 10_000_000 + '"}')
    start = time.process_time()
    assert detected(tmp_path) == [] and detected(tmp_path / "big.json") == []
    assert time.process_time() - start < 0.5


# Values of every type, in the place of any other.
WRONG = [
    *(None, True, -1, 0, 1.5, 10**400, float("nan"), float("inf"), -1e300, "", "x", "1", "nan"),
    *([], {}, [[]], [None], [1, 2], {"x": 1}, [[[]]], "\0", "a" * 5000, "-5", [{}], "\ud800"),
]


def damage_json(text, rng):
    content = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 4])):
        places = list(_places(content))
        if not places:
            break
        parent, key = rng.choice(places)
        if rng.random() < 0.2:
            del parent[key]
        else:
            parent[key] = copy.deepcopy(rng.choice(WRONG))
    return json.dumps(content).encode()


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(items):
        yield value, key
        # Of the many bytes of a brush, a few are enough.
        if isinstance(each, dict) or (isinstance(each, list) and len(each) < 60):
            yield from _places(each)


XML_VALUE = re.compile(rb'(?<=")[^"<>]*(?=")|(?<=>)[^<>]+(?=<)')
WRONG_TEXTS = [
    *(
        b"",
        b" ",
        b"-1",
        b"0",
        b"1.5",
        b"nan",
        b"inf",
        b"1e99",
        b"9" * 400,
        b"x",
        b"a" * 5000,
        b"1,2",
    ),
    *(b"&#0;", b"&#10;", b"&lt;", b"1;2;3", b"0, 1, 2", b"../..", b"&x;", b"<x/>", b"\xff"),
]


def damage_xml(text, rng):
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.choice(list(XML_VALUE.finditer(text)))
        text = text[: place.start()] + rng.choice(WRONG_TEXTS) + text[place.end() :]
    return text


def damage_text(text, rng):
    data = bytearray(text)
    for _ in range(rng.choice([1, 1, 3, 10])):
        at = rng.randrange(len(data) + 1)
        data[at : at + rng.choice([0, 1, 1, 4])] = rng.choice(
            [b"", b"\0", b"<", b'"', b"-", b"9" * 9, b"nan", b"\xff", b"e99", b" ", b"</", b"inf"]
        )
    return bytes(data)


def check(found):
    """What the contract says of a labelling."""
    assert isinstance(found, Labelling) and found.images
    assert len(set(found.names)) == len(found.names)
    for image in found.images:
        assert isinstance(image.image, str) and image.image and "\0" not in image.image
        for shape in image.shapes:
            assert shape.label in found.names
            numbers = [*(shape.box or ()), *(v for p in shape.polygons for v in p)]
            assert all(abs(v) <= 2**26 for v in numbers)  # not so with a NaN
            assert shape.box or shape.polygons or shape.rle
            assert all(len(p) >= 6 and len(p) % 2 == 0 for p in shape.polygons)
    for problem in found.problems:
        assert os.path.basename(problem.file) in problem.message


def fuzz(folder, name, rounds, seed):
    WRITERS[name](folder)
    rng = random.Random(seed)
    files = [os.path.join(top, file) for top, _, files in os.walk(folder) for file in sorted(files)]
    originals = {file: Path(file).read_bytes() for file in files}
    outcomes = {"read": 0, "refused": 0}
    for _ in range(rounds):
        file = rng.choice(files)
        by_kind = {".json": damage_json, ".xml": damage_xml}.get(os.path.splitext(file)[1])
        damage = by_kind if by_kind and rng.random() < 0.8 else damage_text
        damaged = damage(originals[file], rng)
        with open(file, "wb") as f:
            f.write(damaged)
        FORMATS[name].detect(str(folder), str(folder))
        try:
            check(FORMATS[name].read(str(folder), str(folder)))
            outcomes["read"] += 1
        except InputError as e:
            assert str(folder) in str(e), e
            outcomes["refused"] += 1
        except Exception as e:
            raise AssertionError(f"{name}: {file}: {damaged[:3000]!r}") from e
        with open(file, "wb") as f:
            f.write(originals[file])
    return outcomes


@pytest.mark.parametrize("name", WRITERS)
def test_no_damage_makes_a_traceback(tmp_path, name):
    outcomes = fuzz(tmp_path, name, 40, seed=0)
    assert outcomes["read"] > 2 and outcomes["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_no_damage_makes_a_traceback_long(tmp_path, name):
    fuzz(tmp_path, name, int(os.environ.get("FUZZ_ROUNDS", 500)), seed=1)
