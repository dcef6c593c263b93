"""Which paths are read through iopath and not from this machine's disk."""

from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from topformer_d2.files import is_remote


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *((f"{scheme}://a/b", True) for scheme in ("https", "s3", "detectron2", "a+b.c-d")),
        *((path, False) for path in ("a/b", "/a/b", "", "C:\\a", "//host/a", "1://a", "a b://c")),
        ("runs/a://b", False),  # of a folder "a:"
        (Path("/a"), False),
    ],
)
def test_a_remote_path_begins_with_a_scheme(path, expected):
    assert is_remote(path) == expected


def test_nothing_else_looks_for_schemes():
    for path in (REPOSITORY / "topformer_d2").rglob("*.py"):
        assert path.name == "remote.py" or '"://"' not in path.read_text(), path
