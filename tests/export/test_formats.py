"""What a format cannot do is told before the work, by the parameter that asks for it."""

from dataclasses import replace

import pytest

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.export import FORMATS, export_model
from topformer_d2.export import model as export_module
from topformer_d2.inference.formats import import_extra, of_runtime, runtimes_of


@pytest.fixture
def few(monkeypatch):
    """A format "few", which can do little; nothing is built."""
    kind = replace(
        FORMATS["onnx"],
        name="few",
        extension=".few",
        beside=(".bin", ".json"),
        fixed_size=True,
        gives_boxes=False,
        gives_labels=False,
        takes_images=False,
    )
    monkeypatch.setitem(FORMATS, "few", kind)
    monkeypatch.setattr(export_module, "build_model", None)
    return kind


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"labels": True}, r"`labels` does not go with `file_format` 'few'.*'onnx'"),
        ({"with_preprocessing": True}, r"`with_preprocessing` does not go with .*'few'.*'onnx'"),
        ({"size": None}, r"`file_format` 'few' .*one fixed size.*`size`"),
    ],
)
def test_what_a_format_cannot_do_is_refused_first(few, tmp_path, keys, message):
    keys = {"size": (64, 64), **keys}
    with pytest.raises(InputError, match=message):
        export_model(
            get_config("seg_topformer_t"),
            "w.pth",
            str(tmp_path / "m.few"),
            **keys,
            file_format="few",
        )


@pytest.mark.parametrize(
    "name, message",
    [
        ("m.xml", r"m\.bin would be written over, which is of m\.xml"),
        ("m.json", r"m\.json beside it, .*no model's description"),
    ],
)
def test_files_of_another_model_are_not_written_over(few, tmp_path, name, message):
    (tmp_path / name).write_bytes(b"{}")
    path = str(tmp_path / "m.few")
    with pytest.raises(InputError, match=message):
        export_model(get_config("seg_topformer_t"), "w.pth", path, file_format="few", size=(64, 64))
    assert (tmp_path / name).read_bytes() == b"{}"


def test_the_extra_is_named():
    with pytest.raises(InputError, match=r"needs no_such_library .*'topformer_d2\[few\]'"):
        import_extra("no_such_library", "few")


def test_each_runtime_opens_its_own_format():
    for kind in FORMATS.values():
        assert of_runtime(kind.runtime) is kind
        assert runtimes_of(kind.extension)[0] == kind.runtime
        assert kind.extension in kind.reads and kind.extension not in kind.beside
