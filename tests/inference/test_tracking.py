"""Objects numbered through the frames of a video."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.inference.test_label_files import info
from topformer_d2.data.scene import Scene
from topformer_d2.errors import InputError
from topformer_d2.inference.results import result_lines
from topformer_d2.inference.tracking import BoxTracker
from topformer_d2.inference.video import VideoReader, VideoWriter
from topformer_d2.visualization import draw_boxes, predict_video

HEIGHT, WIDTH = 96, 160


def scene(time, order=(0, 1)):
    """Two objects that cross the picture towards each other, one of them faintly at times."""
    boxes = np.array(
        [[5 + 6 * time, 10, 35 + 6 * time, 40], [110 - 6 * time, 55, 150 - 6 * time, 85]]
    )
    scores = np.array([0.9, 0.2 if time in (4, 5) else 0.7])
    order = list(order)
    return Scene(
        boxes=boxes[order],
        classes=np.array([0, 1])[order],
        scores=scores[order],
        size=(HEIGHT, WIDTH),
    )


@pytest.fixture
def library():
    pytest.importorskip("trackers")


def test_objects_keep_their_numbers(library):
    track = BoxTracker(25, 0.5)
    found = [track(scene(t, order=(0, 1) if t % 2 else (1, 0))) for t in range(9)]
    assert found[0].tracks.tolist() == [0, 0]
    numbers = [dict(zip(f.classes.tolist(), f.tracks.tolist(), strict=True)) for f in found[1:]]
    assert all(each == numbers[0] for each in numbers) and {*numbers[0].values()} == {1, 2}
    # A faint box is drawn where its object is known, and is not where it is not.
    assert [len(f.above(0.5).boxes) for f in found] == [2] * 9
    assert len(scene(4).above(0.5).boxes) == 1
    # Another video begins anew.
    again = BoxTracker(25, 0.5)
    again(scene(0))
    assert sorted(again(scene(1)).tracks.tolist()) == [1, 2]


def test_frames_without_boxes_and_faint_boxes(library):
    track = BoxTracker(25, 0.5)
    empty = Scene(scores=[], size=(HEIGHT, WIDTH))
    assert track(empty).tracks.tolist() == []
    faint = Scene(boxes=[[0, 0, 9, 9]] * 2, classes=[0, 0], scores=[0.05, 0.3], size=(9, 9))
    for _ in range(3):
        assert track(faint).tracks.tolist() == [0, 0]
    track(scene(0))
    assert sorted(track(scene(1)).tracks.tolist()) == [1, 2]
    assert track(empty).tracks.tolist() == []
    assert sorted(track(scene(3)).tracks.tolist()) == [1, 2]


class Model:
    """Finds the two objects by the number of the call."""

    def __init__(self, *tasks):
        self.info, self.calls = info(tasks), 0

    def __call__(self, frame):
        self.calls += 1
        return scene(self.calls - 1)


def write_video(path, count=6):
    with VideoWriter(path, 10) as writer:
        for _ in range(count):
            writer.write(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return str(path)


def test_a_video_and_its_json_have_the_numbers(library, tmp_path):
    source = write_video(tmp_path / "a.avi")
    out, lines = tmp_path / "o.avi", tmp_path / "boxes.jsonl"
    done = predict_video(Model("instances"), source, str(out), json_file=lines, track=True)
    assert done == (6, None) and len([*VideoReader(out)]) == 6
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [each["image_id"] for each in found] == [i // 2 for i in range(12)]
    assert ["track_id" in each for each in found] == [False] * 2 + [True] * 10
    assert {(each["category_id"], each["track_id"]) for each in found[2:]} == {(7, 1), (3, 2)}


def test_a_video_without_tracking_has_all_boxes_in_its_json(tmp_path):
    source, lines = write_video(tmp_path / "a.avi", 2), tmp_path / "boxes.jsonl"
    predict_video(Model("instances"), source, str(tmp_path / "o.avi"), json_file=lines)
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(found) == 4 and all("track_id" not in each for each in found)
    with pytest.raises(InputError, match="also the input"):
        predict_video(Model("instances"), source, str(tmp_path / "o.avi"), json_file=source)


def test_ctrl_c_keeps_the_boxes_of_the_frames_that_are_done(tmp_path, monkeypatch):
    source, lines = write_video(tmp_path / "a.avi"), tmp_path / "boxes.jsonl"

    class Stopped(Model):
        def __call__(self, frame):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().__call__(frame)

    with pytest.raises(KeyboardInterrupt):
        predict_video(Stopped("instances"), source, str(tmp_path / "o.avi"), json_file=lines)
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {each["image_id"] for each in found} == {0, 1}
    assert len([*VideoReader(tmp_path / "o.avi")]) == 2


def test_models_that_find_no_boxes_and_a_library_that_is_not_there(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.avi", 1)
    with pytest.raises(InputError, match="`track` is for boxes"):
        predict_video(Model("sem_seg"), source, str(tmp_path / "o.avi"), track=True)
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(InputError, match=r"`track` needs trackers .*: pip install trackers"):
        BoxTracker(25)
    monkeypatch.setitem(sys.modules, "trackers", SimpleNamespace())
    with pytest.raises(InputError, match=r"trackers>=2\.1"):
        BoxTracker(25)
    assert not (tmp_path / "o.avi").exists()


def test_a_number_has_one_colour_in_all_frames():
    names, colors = ["car", "person"], np.zeros((2, 3), np.uint8)
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)

    def edge(tracks, time):
        found = scene(time)
        found.tracks = None if tracks is None else np.array(tracks)
        x0, y1 = found.boxes[0][[0, 3]].astype(int)
        return tuple(draw_boxes(image, found, names, colors)[y1, x0].tolist())

    assert edge([1, 2], 0) == edge([1, 0], 3) != edge([2, 1], 0)
    assert edge(None, 0) == edge([0, 1], 0) == (0, 0, 0)


def test_a_scene_tells_its_numbers():
    found = scene(0)
    found.tracks = np.array([0, 4])
    assert [b.get("track") for b in found.to_dict()["boxes"]] == [None, 4]
    lines = [json.loads(line) for line in result_lines(found, 0, (7, 3))]
    assert [each.get("track_id") for each in lines] == [None, 4]
    with pytest.raises(InputError, match="2 boxes has 1 tracks"):
        Scene(boxes=found.boxes, classes=found.classes, tracks=[1])
