"""Every kind of finding, by a file that triggers it."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.data.damage import (
    HEIGHT,
    IMAGE,
    LABEL,
    box,
    copy_label,
    cut,
    edit_label,
    save_as_jpeg,
    save_deep,
    save_few_bits,
    save_palette,
    save_turned,
    set_boxes,
    with_value,
)
from tests.data.test_sets import CASES as SETS
from tests.helpers import REPOSITORY
from topformer_d2.data.boxes import clean_boxes
from topformer_d2.data.inspection import (
    SEVERITY,
    inspect_datasets,
)
from topformer_d2.data.mapper import TaskMapper
from topformer_d2.errors import InputError

CASES = {
    "no label": ("missing file", lambda r: os.remove(r[LABEL]), LABEL, "does not exist"),
    "no label named": ("missing file", lambda r: r.pop(LABEL), IMAGE, "has no label file"),
    "cut image": ("unreadable file", lambda r: cut(r[IMAGE]), IMAGE, "cannot be read: "),
    "cut label": ("unreadable file", lambda r: cut(r[LABEL]), LABEL, "cannot be read: "),
    "no picture": (
        "unreadable file",
        lambda r: Path(r[IMAGE]).write_text("<html>not found</html>"),
        IMAGE,
        "cannot be read",
    ),
    "16-bit grey": (
        "unreadable file",
        lambda r: save_deep(r[IMAGE], 1),
        IMAGE,
        "grey with more than 8 bits",
    ),
    "16-bit colour": (
        "16-bit colour image",
        lambda r: save_deep(r[IMAGE], 3),
        IMAGE,
        "the upper 8 are used",
    ),
    "palette image": (
        "palette image",
        lambda r: save_palette(r[IMAGE]),
        IMAGE,
        "has a palette",
    ),
    "upside down": (
        "EXIF rotation",
        lambda r: save_turned(r[IMAGE], 3),
        IMAGE,
        "EXIF orientation 3",
    ),
    "16-bit label": ("16-bit label", lambda r: save_deep(r[LABEL], 1), LABEL, "mode 'I"),
    "palette label": ("palette label", lambda r: save_palette(r[LABEL]), LABEL, "mode 'P'"),
    "colour label": (
        "colour label",
        lambda r: edit_label(r, lambda label: Image.fromarray(label).convert("RGB")),
        LABEL,
        "mode 'RGB'",
    ),
    "smaller label": (
        "sizes differ",
        lambda r: edit_label(r, lambda label: Image.fromarray(label[:, 1:])),
        LABEL,
        r"\(40, 50\) \(height, width\) and its label .*\(40, 49\)",
    ),
    "another recorded size": (
        "sizes differ",
        lambda r: r.update(height=HEIGHT + 1),
        IMAGE,
        r"\(40, 50\).*for an image of \(41, 50\)",
    ),
    "label 2": (
        "label out of range",
        lambda r: edit_label(r, lambda label: with_value(label, 2)),
        LABEL,
        "label 2 is out of range; the 2 classes are 0 to 1, and 255 is ignored",
    ),
    "three numbers": ("malformed box", lambda r: set_boxes(r, box([1, 2, 3])), IMAGE, "malformed"),
    "4-bit label": ("1 to 4-bit label", lambda r: save_few_bits(r[LABEL]), LABEL, "and 4 bits"),
    "NaN": ("box of no area", lambda r: set_boxes(r, box([float("nan"), 2, 3, 3])), IMAGE, "nan"),
    "class 2": (
        "class out of range",
        lambda r: set_boxes(r, box([1, 2, 3, 3], 2), box([1, 2, 3, 3], -1)),
        IMAGE,
        r"\[1, 2, 3, 3\] of class 2 in 50x40, and 1 more",
    ),
    "beyond float32": (
        "malformed box",
        lambda r: set_boxes(r, box([1, 2, 1e39, 3])),
        IMAGE,
        "1e",
    ),
    "400 digits": (
        "malformed box",
        lambda r: set_boxes(r, box([1, 2.5, 10**400, 3])),
        IMAGE,
        "malformed box: .*1, 2.5, 1000",
    ),
    "JPEG by content": ("JPEG label", lambda r: save_as_jpeg(r[LABEL]), LABEL, "is a JPEG file"),
    "label as image": (
        "image is its label",
        lambda r: copy_label(r, 1),
        IMAGE,
        "one value for each class",
    ),
    "scaled label as image": (
        "image shows its label",
        lambda r: copy_label(r, 127),
        IMAGE,
        "one value for each class",
    ),
    "flat": ("box of no area", lambda r: set_boxes(r, box([1, 2, 0, 3])), IMAGE, "no area"),
    "outside": (
        "box outside the image",
        lambda r: set_boxes(r, box([50, 2, 9, 9])),
        IMAGE,
        r"outside the image: \[50, 2, 9, 9\]",
    ),
    "half outside": (
        "box reaches out",
        lambda r: set_boxes(r, box([40, 2, 12, 9])),
        IMAGE,
        "reaches out",
    ),
    "label alone": (
        "label without image",
        lambda r: Image.open(r[LABEL]).save(r[LABEL].replace("1.png", "7.png")),
        "labels/7.png",
        "has no image in",
    ),
    "image alone": (
        "image without label",
        lambda r: Image.open(r[IMAGE]).save(r[IMAGE].replace("1.png", "7.png")),
        "images/7.png",
        "has no label in a dataset that is checked here",
    ),
}


def test_nothing_is_found_in_good_files(both):
    report = inspect_datasets(["both"])
    assert report.all_findings == []
    dataset = report.datasets[0]
    assert dataset.pixels == [("road", 3 * 1750), ("sky", 3 * 200)]
    assert dataset.tally.pixels[255] == 3 * 50
    assert dataset.objects == [("cat", 3), ("dog", 3)]


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_finding(both, tmp_path, case):
    kind, spoil, file, words = CASES[case]
    record = both[1]
    path = record.get(file) or str(tmp_path / file)
    spoil(record)
    report = inspect_datasets(["both"])
    assert [(f.kind, f.file) for f in report.all_findings] == [(kind, path)]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(report.all_findings[0].message)
    assert len(report.errors) == (SEVERITY[kind] == "error")


def test_every_kind_has_a_case():
    elsewhere = {"config", "dataset", "class never seen", "image in training and test"}
    # tests/data/formats and tests/data/labelling
    elsewhere |= {"malformed annotation", "unknown label", "unknown colour", "other label values"}
    elsewhere |= {"listed image missing", "image labelled twice"}
    elsewhere |= {"duplicate annotation", "annotation not used", "label never seen"}
    elsewhere |= {"class without an image"}  # test_class_folders.py
    of_sets = {kind for kind, *_ in SETS.values()}
    assert {kind for kind, *_ in CASES.values()} | of_sets | elsewhere == SEVERITY.keys()
    text = (REPOSITORY / "docs/checking_data.md").read_text()
    for kind, severity in SEVERITY.items():
        assert f"\n| {kind} | {severity} |" in text


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("alone")])
def test_errors_are_what_stops_training(both, case):
    kind, spoil, *_ = CASES[case]
    spoil(both[1])
    mapper = TaskMapper(
        is_train=True,
        tasks=("sem_seg", "instances"),
        augmentations=[],
        image_format="RGB",
        num_labels=2,
    )
    # These go through and are wrong: an index past the end of the classes, a copy of the label.
    stops = SEVERITY[kind] == "error" and kind not in ("class out of range", "image is its label")
    try:
        mapper(clean_boxes([both[1]])[0])
    except InputError:
        assert stops
    else:
        assert not stops


def test_an_image_turned_by_90_degrees_differs_in_size(both):
    save_turned(both[0]["file_name"], 6)
    kinds = [finding.kind for finding in inspect_datasets(["both"]).all_findings]
    assert kinds == ["EXIF rotation", "sizes differ", "sizes differ"]  # recorded, and its label's
