"""Sources that are damaged, hostile or not files: each is refused or told, and costs no memory."""

import copy
import inspect
import io
import os
import signal
import socket
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data.test_prepare_voc import voc, xml  # noqa: F401 (a fixture)
from tests.helpers import topformer
from topformer_d2.cli import data_prepare
from topformer_d2.data import images
from topformer_d2.data.image_files import list_images
from topformer_d2.data.prepare import opening
from topformer_d2.data.prepare.pixel_datasets import prepare_sem_seg
from topformer_d2.data.prepare.source import Source
from topformer_d2.data.prepare.voc import prepare_voc
from topformer_d2.errors import InputError
from topformer_d2.files import locked_output


def test_what_is_not_a_file_is_left_out_of_a_folder(tmp_path, capsys):
    top = tmp_path / "top"
    top.mkdir()
    (top / "whole.txt").write_text("x")
    os.mkfifo(top / "pipe.png")
    (top / "loop.png").symlink_to(top / "loop.png")
    (top / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(top / "socket.png"))
        assert Source([str(top)]).names == ["top/whole.txt"]
    told = capsys.readouterr()
    assert "left out 4 not regular files" in told.out + told.err


@pytest.mark.parametrize("kind", ["pipe", "loop", "device"])
def test_a_source_that_is_not_a_file_is_refused(tmp_path, kind):
    path = tmp_path / "source"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else "/dev/zero")
    with pytest.raises(InputError, match=str(path)):
        Source([str(path)])


def _zip(path, compression=zipfile.ZIP_DEFLATED, size=300_000):
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("a/zeros.png", bytes(size))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
def test_size_is_limited_before_it_is_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(opening, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "source"
    if kind == "zip":
        _zip(path)
    elif kind == "tar":
        with tarfile.open(path, "w") as t:
            info = tarfile.TarInfo("a/zeros.png")
            info.size = 300_000
            t.addfile(info, io.BytesIO(bytes(300_000)))
    else:
        path.mkdir()
        (path / "zeros.png").write_bytes(bytes(300_000))
    source = Source([str(path)])
    with pytest.raises(ValueError, match=r"claims 300000 bytes.*1000 at most; `max_gib` 1 "):
        source.read(source.names[0])
    assert len(Source([str(path)], max_gib=0.001).read(source.names[0])) == 300_000


@pytest.mark.parametrize("max_gib", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(tmp_path, max_gib):
    with pytest.raises(InputError, match=f"max_gib is {max_gib}"):
        Source([str(tmp_path)], max_gib=max_gib)


def test_folders_nested_deeper_than_calls_may_be(tmp_path, request):
    depth, before = 200, sys.getrecursionlimit()
    deepest = tmp_path / ("d/" * depth)
    for i in range(1, depth + 1):
        os.mkdir(tmp_path / ("d/" * i))
    (deepest / "x.png").touch()
    request.addfinalizer(lambda: sys.setrecursionlimit(before))
    sys.setrecursionlimit(len(inspect.stack()) + 150)  # for 1,000 folders take seconds
    assert Source([str(tmp_path / "d")]).names == ["d/" * depth + "x.png"]
    assert list_images(deepest) == [str(deepest / "x.png")]
    with pytest.raises(InputError, match=r"`source` .*\*\*: .*nested too deep"):
        list_images(tmp_path / "**", "source")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_lies_about_a_size_is_damaged(tmp_path, compression):
    path = _zip(tmp_path / "a.zip", compression)
    content = path.read_bytes()
    path.write_bytes(content.replace((300_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ValueError):
        Source([str(path)]).read("a/zeros.png")


def test_a_zip_with_a_password_is_refused(tmp_path):
    path = _zip(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip has files with a password"):
        Source([str(path)])


def test_a_zip_whose_files_overlap_is_refused(tmp_path):
    """A small one would else be read as many large files."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("a/0.png", bytes(100))
        again = copy.copy(z.infolist()[0])
        again.filename = "a/1.png"
        z.filelist.append(again)
    with pytest.raises(InputError, match=r"a\.zip is damaged: 'a/1\.png' begins within another"):
        Source([str(tmp_path / "a.zip")])


def test_links_in_a_tar_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as t:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"a/{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            t.addfile(info)
    assert Source([str(tmp_path / "a.tar")]).names == []


@pytest.mark.parametrize(
    "head", ['<!DOCTYPE a [<!ENTITY x "y">]>', '<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]>']
)
def test_xml_with_entities_is_a_problem(voc, tmp_path, head):  # noqa: F811
    (voc / "Annotations/d.xml").write_text(head + xml(("dog", (2, 3, 4, 5))))
    report = prepare_voc([str(voc)], str(tmp_path / "out"))
    assert any("d.xml" in p and "entities" in p for p in report.problems)


def test_xml_of_another_image_size_is_a_problem_with_a_count(voc, tmp_path):  # noqa: F811
    text = (voc / "Annotations/d.xml").read_text()
    (voc / "Annotations/d.xml").write_text(text.replace(">40<", ">80<"))
    report = prepare_voc([str(voc)], str(tmp_path / "out"))
    problems = "\n".join(report.problems)
    assert "(80, 30)" in problems and "1 of 4 images have another size" in problems
    assert not (tmp_path / "out/images/d.JPG").exists()


def test_xml_of_size_zero_takes_the_image_s_with_a_note(voc, tmp_path):  # noqa: F811
    text = (voc / "Annotations/d.xml").read_text()
    (voc / "Annotations/d.xml").write_text(text.replace(">40<", ">0<").replace(">30<", ">0<"))
    report = prepare_voc([str(voc)], str(tmp_path / "out"))
    assert not report.problems and report.without_size == 2


def _camvid(top: Path) -> Path:
    for folder in ("train", "trainannot"):
        (top / folder).mkdir(parents=True)
        mode = "RGB" if folder == "train" else "L"
        for i in range(3):
            Image.fromarray(np.zeros((8, 8), np.uint8)).convert(mode).save(
                top / folder / f"{i}.png"
            )
    return top


def test_voc_boxes_in_fractions_and_a_class_named_twice_are_refused(voc, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match=r"a name twice: \['dog', 'dog'\]"):
        prepare_voc([str(voc)], str(tmp_path / "out"), ["dog", "dog"])
    for file in (voc / "Annotations").iterdir():
        file.write_text(xml(("dog", (0.1, 0.2, 0.5, 1))))
    with pytest.raises(InputError, match=r"within 0\.\.1"):
        prepare_voc([str(voc)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_image_of_too_many_pixels_costs_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 63)
    report = prepare_sem_seg("camvid", [str(_camvid(tmp_path / "a"))], str(tmp_path / "root"))
    problems = report["train"].problems
    assert len(problems) == 3 and all("8x8 pixels, more than the 63" in p for p in problems)


def test_labels_whose_format_changes_ids_are_problems(tmp_path):
    source = _camvid(tmp_path / "a")
    label = Image.open(source / "trainannot/0.png")
    label.save(source / "trainannot/0.png", "JPEG")
    cv2.imwrite(
        str(source / "trainannot/1.png"), np.zeros((8, 8), np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1]
    )
    (source / "trainannot/2.png").write_bytes(_grey_png(bits=4))
    problems = prepare_sem_seg("camvid", [str(source)], str(tmp_path / "r"))["train"].problems
    assert "a/trainannot/0.png is a JPEG file" in problems[0]
    assert "bool" in problems[1]
    assert "a/trainannot/2.png is a grey PNG of 4 bits" in problems[2]


def _grey_png(bits: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes(8 * (1 + bits)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )


def test_names_that_cannot_be_written_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as t:
        for name in ("a/" + "x" * 300 + ".png", ".", "a/whole.png", "a/\udcff.png"):
            t.addfile(tarfile.TarInfo(name))
    assert Source([str(tmp_path / "a.tar")]).names == ["a/whole.png"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_with_one_word(monkeypatch, number, status):
    before = signal.getsignal(number)
    monkeypatch.setattr(
        data_prepare, "prepare_camvid", lambda *_, **__: signal.raise_signal(number)
    )
    result = topformer("data", "prepare", "camvid", "--source", "x")
    assert result.returncode == status and signal.getsignal(number) is before
    assert result.stderr in ("interrupted\n", "terminated\n")


def test_two_preparations_of_one_folder_are_refused(tmp_path):
    source, folder = _camvid(tmp_path / "CamVid"), tmp_path / "root/camvid"
    folder.mkdir(parents=True)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # only holds the lock, until it is told to end
        with locked_output(folder, "preparing camvid"):
            os.write(writing, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(reading, 1)
    try:
        with pytest.raises(InputError, match=rf"process {child} .*preparing camvid"):
            prepare_sem_seg("camvid", [str(source)], str(tmp_path / "root"))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert prepare_sem_seg("camvid", [str(source)], str(tmp_path / "root"))["train"].total == 3


def test_full_disk_ends_with_one_error_and_a_second_run_goes_on(tmp_path, monkeypatch):
    source, written = _camvid(tmp_path / "CamVid"), []

    def full(path, content, **_):
        written.append(path)
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as m:
        m.setattr("topformer_d2.data.prepare.pixel_datasets.write_beside", full)
        with pytest.raises(OSError, match="No space left"):
            prepare_sem_seg("camvid", [str(source)], str(tmp_path / "root"))
    assert written and not list((tmp_path / "root").rglob("*.partial"))
    assert prepare_sem_seg("camvid", [str(source)], str(tmp_path / "root"))["train"].written == 3
