"""What a converter prints goes to the log, and what it does not write is told."""

import logging
import sys

import pytest

from topformer_d2.errors import InputError
from topformer_d2.inference.formats import import_extra
from topformer_d2.inference.formats.converters import run_converter


def script(code):
    return [sys.executable, "-c", code]


def test_output_and_log(tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG, logger="topformer_d2")
    logging.getLogger("topformer_d2").addHandler(caplog.handler)
    code = "import sys; open('made', 'w').write('1'); print('a line'); print('b', file=sys.stderr)"
    try:
        assert run_converter(script(code), tmp_path, "made") == tmp_path / "made"
    finally:
        logging.getLogger("topformer_d2").removeHandler(caplog.handler)
    assert (tmp_path / "made").read_text() == "1"
    assert capfd.readouterr() == ("", "")
    assert "a line" in caplog.text and "\nb" in caplog.text


@pytest.mark.parametrize(
    "code",
    [
        "print('no such operator')",
        "print('no such operator'); raise SystemExit(3)",
        "open('made', 'w'); print('no such operator', flush=True); import os; os.abort()",
    ],
)
def test_a_converter_that_fails_is_told(tmp_path, code):
    with pytest.raises(RuntimeError, match=r"wrote no made, and printed: .*no such operator"):
        run_converter(script(code), tmp_path, "made")


def test_of_a_progress_bar_the_last_state_is_told(tmp_path):
    code = r"print('1 %\r50 %\r100 %\n\nno room')"
    with pytest.raises(RuntimeError, match=r"printed: 100 %; no room$"):
        run_converter(script(code), tmp_path, "made")


def test_importing_prints_nothing(tmp_path, monkeypatch, capfd):
    code = "import os, sys\nprint('python')\nos.write(1, b'C')\nos.write(2, b'error')\nvalue = 3\n"
    (tmp_path / "loud_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert import_extra("loud_module", "few").value == 3
    monkeypatch.delitem(sys.modules, "loud_module")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InputError, match=r"topformer_d2\[few\]"):
        import_extra("no_such_library", "few")
    print("still here")
    assert capfd.readouterr().out == "still here\n"
