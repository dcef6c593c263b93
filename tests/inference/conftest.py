"""Images that the tests of bulk prediction take."""

import pytest

from tests.faults.stand_in import write_inputs

COUNT = 20  # images, in three partitions


@pytest.fixture
def photos(tmp_path):
    """A folder of COUNT small images."""
    write_inputs(tmp_path / "in", COUNT)
    return tmp_path / "in"
