"""Fonts for class names in any script."""

import os

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont

from topformer_d2.visualization import add_legend, overlay

DEJAVU = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@pytest.fixture(autouse=True)
def _nothing_is_cached():
    def clear():
        overlay.text_font.cache_clear()
        overlay._font_with.cache_clear()
        overlay._installed_fonts.cache_clear()
        overlay._characters.cache_clear()
        overlay._warned.clear()

    clear()
    yield
    clear()


def test_latin_names_never_look_for_a_font(monkeypatch):
    monkeypatch.setattr(overlay, "_installed_fonts", lambda: 1 / 0)
    for text in ("road 87%", "Stra\xdfe", "\u0434\u043e\u0440\u043e\u0433\u0430"):
        assert overlay.text_font(12, text).path == DEJAVU


def test_an_installed_font_is_found_by_its_characters(monkeypatch):
    other = DEJAVU.replace("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
    tables = {DEJAVU: frozenset(range(256)), "bad.ttf": frozenset()}
    tables[other] = frozenset(range(0x5000))
    monkeypatch.setattr(overlay, "_characters", tables.__getitem__)
    monkeypatch.setattr(overlay, "_installed_fonts", lambda: ("bad.ttf", other))
    assert overlay.text_font(12, "\u4eba 87%").path == other
    assert isinstance(overlay.text_font(12, "\u4eba"), ImageFont.FreeTypeFont)


def test_a_missing_font_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(overlay.font_manager, "findSystemFonts", lambda: ["/no/font.ttf", DEJAVU])
    label, names = np.array([[0, 1]]), ["\u4eba", "\uc0ac\ub78c"]
    picture = np.zeros((90, 60, 3), np.uint8)
    for _ in range(2):
        add_legend(picture, label, names, np.zeros((2, 3), np.uint8))
    assert caplog.text.count("fonts-noto-cjk") == 1 and len(caplog.records) == 1
