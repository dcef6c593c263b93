"""Boxes of one object through the frames of a video, by ByteTrack of the library trackers.

Source: Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box, 2022.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..data.scene import Scene
from ..errors import InputError, import_optional

# Boxes below it are left alone, as ByteTrack's own settings have it.
_LEAST_SCORE = 0.1


class BoxTracker:
    """Numbers the objects of a video from frame to frame."""

    def __init__(self, frame_rate: float, min_score: float = 0.5):
        """
        Args:
            frame_rate: frames a second. An object that is in none of so many is given up.
            min_score: of the boxes that begin a track; those from 0.1 on continue one.

        Raises:
            InputError: the library is not installed, or is too old.
        """
        library = import_optional("trackers", "`track`", "trackers")
        make = getattr(library, "ByteTrackTracker", None)
        if make is None:
            raise InputError("`track` needs a newer trackers: pip install 'trackers>=2.1'")
        self._tracker = make(
            frame_rate=frame_rate,
            track_activation_threshold=min_score,
            high_conf_det_threshold=min_score,
        )
        self._least = min(_LEAST_SCORE, min_score)
        # Its own numbers go on from tracker to tracker in some versions.
        self._numbers: dict[int, int] = {}

    def __call__(self, scene: Scene) -> Scene:
        """The next frame's scene with its `tracks`: all boxes, in their order.

        An object has a number from its second frame on.
        """
        assert scene.scores is not None
        places = np.flatnonzero(scene.scores >= self._least)
        given = replace(scene, tracks=None).to_supervision()[places]
        given.data = {"place": places}
        found = self._tracker.update(given)
        tracks = np.zeros(len(scene.boxes), np.int64)
        if len(found):
            for place, number in zip(found.data["place"], found.tracker_id, strict=True):
                if number >= 0:
                    tracks[place] = self._numbers.setdefault(int(number), len(self._numbers) + 1)
        return replace(scene, tracks=tracks)
