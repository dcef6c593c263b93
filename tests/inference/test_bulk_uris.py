"""Addresses of images that are none, and what a folder has no address for."""

import os

import pytest

from topformer_d2.errors import InputError
from topformer_d2.inference.bulk import list_inputs


def test_a_folder_by_uri_with_a_name_that_is_not_utf_8_is_told(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra ray has it")
    open(os.path.join(os.fsencode(tmp_path), b"\xff.png"), "wb").close()
    with pytest.raises(InputError, match=r"^`input` file://\S+ has a file .* not UTF-8"):
        list_inputs(tmp_path.as_uri(), "input")


@pytest.mark.parametrize("line", [b"http://[::1/a.png", b"file:///\xff.png", b"file:///a%00.png"])
def test_a_line_that_is_no_uri_is_told_before_anything(tmp_path, line):
    (tmp_path / "list.txt").write_bytes(b"/a.png\n" + line)
    with pytest.raises(InputError, match=r"^`input` (http|file)://\S+ is no URI"):
        list_inputs(tmp_path / "list.txt", "input")
    with pytest.raises(InputError, match=r"^`input` (http|file)://\S+ is no URI"):
        list_inputs(os.fsdecode(line), "input")
