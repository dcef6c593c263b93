"""Tiles of large images, and one answer from all of theirs."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from topformer_d2.inference.backends import NetworkOutput
from topformer_d2.inference.tiled_boxes import merge_boxes
from topformer_d2.inference.tiles import TiledLogits, tile_places, tile_starts


def test_tiles_cover_a_side_and_overlap():
    assert tile_starts(100, 128) == [0]
    assert tile_starts(512, 256) == [0, 192, 256]
    for side in range(320, 2048, 64):
        starts = tile_starts(side, 256)
        assert starts[0] == 0 and starts[-1] == side - 256
        assert all(256 - (b - a) >= 64 and a % 64 == 0 for a, b in pairwise(starts))


@pytest.mark.parametrize("size", [(320, 576), (90, 448), (384, 77)])
def test_tiled_logits_of_a_network_without_context_are_the_whole_images(size):
    """A network that looks at each cell of 8x8 alone gives the same logits in any tiles."""
    image = np.random.default_rng(0).random((*size, 3), np.float32)

    def network(tile, *_):
        x = torch.from_numpy(np.ascontiguousarray(tile)).permute(2, 0, 1)[None]
        return torch.nn.functional.avg_pool2d(x, 8, ceil_mode=True)[0]

    logits = TiledLogits(network, image, 192)
    expected = network(image)
    assert logits.shape == tuple(expected.shape)
    for first in range(0, expected.shape[1] - 3, 3):
        torch.testing.assert_close(logits[:, first : first + 5], expected[:, first : first + 5])


def test_boxes_of_tiles_are_each_objects_once():
    """Of a detector that finds in each tile what it sees of every object."""
    objects = np.float32(
        [
            *([10, 20, 60, 90], [120, 30, 160, 70], [100, 100, 140, 140]),
            *([170, 100, 250, 190], [180, 118, 197, 135], [240, 10, 300, 60]),
        ]
    )
    size, tile, outputs = (256, 320), 192, {}
    for y, x in tile_places(size, tile):
        seen = objects.clip([x, y] * 2, np.float32([x + tile, y + tile] * 2)) - [x, y] * 2
        seen = seen[(seen[:, 2:] - seen[:, :2]).min(axis=1) > 3].astype(np.float32)
        scores = np.linspace(0.9, 0.5, len(seen), dtype=np.float32)
        outputs[y, x] = NetworkOutput(
            boxes=seen, scores=scores, classes=np.zeros(len(seen), np.int64)
        )
    found = merge_boxes(outputs, size, tile)
    assert sum(len(output.boxes) for output in outputs.values()) > len(objects)
    np.testing.assert_array_equal(sorted(found.boxes.tolist()), sorted(objects.tolist()))
    assert (np.diff(found.scores) <= 0).all()
