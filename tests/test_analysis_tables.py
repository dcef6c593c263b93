"""The paper's tables as data, and what is counted beside them."""

import re
from decimal import Decimal

import pytest
from detectron2.modeling import build_model

from tests.helpers import topformer
from topformer_d2 import get_config
from topformer_d2.analysis import Cost, Counter, agreement, format_tables, load_tables, tables

TITLES, ROWS = load_tables()
PRESENT = [row for row in ROWS if not tables.absence(row)]

# Of each table, the rows whose models are not here.
MISSING = {"1": {"Semantic FPN, ConvMLP-S", "HR-NAS-A", "HR-NAS-B"}}

# Table, row, part: parameters and GMACs to the fourth digit.
TOPFORMER = {
    ("1", "TopFormer-T, 448x448", "all"): (1_389_654, 0.4405),
    ("1", "TopFormer-T", "all"): (1_389_654, 0.5761),
    ("1", "TopFormer-S", "all"): (3_034_662, 1.1676),
    ("1", "TopFormer-B", "all"): (5_062_646, 1.8202),
    ("3", "1/4, 1/8, 1/16, 1/32", "all"): (5_088_758, 3.3229),
    ("3", "1/16, 1/32", "all"): (5_011_958, 1.4122),
    ("4", "SASE", "all"): (1_405_910, 0.6427),
    ("7", "M = 128", "all"): (4_856_566, 1.4667),
    ("7", "M = 192", "all"): (4_955_510, 1.6266),
    ("9", "TopFormer-T", "backbone"): (1_369_920, 0.4410),
    ("9", "TopFormer-T", "head"): (24_251, 0.0908),
    ("9", "TopFormer-S", "backbone"): (2_968_464, 0.8007),
    ("9", "TopFormer-S", "head"): (48_635, 0.1804),
    ("9", "TopFormer-B", "backbone"): (4_958_048, 1.2463),
    ("9", "TopFormer-B", "head"): (81_211, 0.2995),
    ("10", "TopFormer-T", "backbone"): (1_369_920, 0.4917),
    ("10", "TopFormer-T", "head"): (38_699, 0.1620),
    ("10", "TopFormer-S", "head"): (70_251, 0.2933),
    ("10", "TopFormer-B", "head"): (109_995, 0.4582),
}

# Those of the summary, but for the 1% of "within 1%".
NUMBERS = re.compile(r"\b\d+\b(?!%)")


@pytest.fixture(scope="module")
def counter():
    return Counter()


def find(table, label):
    return next(row for row in ROWS if (row.table, row.label) == (table, label))


def test_rows_are_well_formed():
    assert len({(row.table, row.label) for row in ROWS}) == len(ROWS)
    assert {row.table for row in ROWS} == set(TITLES)
    assert set(map(str, range(1, 12))) < set(TITLES)
    for row in ROWS:
        assert row.figures.keys() <= {"all", "backbone", "head"} and row.results
        assert bool(row.figures) == (row.table != "repository")
        assert all(figures.keys() <= {"parameters", "gmacs"} for figures in row.figures.values())
        assert len(row.opts) % 2 == 0
        assert (row.config is None) == (min(row.height, row.width) == 0)


def test_digits_are_kept_as_reported():
    assert str(find("3", "1/16, 1/32").figures["all"]["parameters"]) == "5.0"
    assert str(find("11", "TopFormer-T").figures["all"]["gmacs"]) == "160"
    assert str(find("5", "both").figures["all"]["gmacs"]) == "1.820"


def test_what_is_missing():
    missing = {title: set() for title in TITLES}
    for row in ROWS:
        if tables.absence(row):
            missing[row.table].add(row.label)
    assert {table: labels for table, labels in missing.items() if labels} == MISSING


@pytest.mark.parametrize(
    ("config", "opts"),
    sorted({(row.config, tuple(row.opts)) for row in PRESENT}),
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_every_present_row_builds(config, opts):
    build_model(get_config(config, [*opts, "MODEL.DEVICE", "cpu"]))


@pytest.mark.parametrize(
    ("ours", "reported", "expected"),
    [
        ("1.3897", "1.4", "close"),
        ("0.5761", "0.6", "rounded"),
        ("1.820", "1.8", "rounded"),
        ("0.3689", "0.3", "cut"),
        ("0.2995", "0.29", "cut"),
        ("10.588", "10.5", "close"),  # 0.8%
        ("0.4405", "0.5", "different"),
        ("1.370", "1.0", "different"),
        ("0.24", "0.3", "different"),
        ("1.81", "1.7", "different"),
        ("159.93", "160", "close"),
        ("26.05", "25.8", "close"),
        ("26.07", "25.8", "different"),
        ("5.049", "5.00", "close"),  # 0.98%
        ("5.06", "5.00", "different"),
    ],
)
def test_agreement(ours, reported, expected):
    assert agreement(Decimal(ours), Decimal(reported)) == expected


@pytest.mark.parametrize(
    ("table", "label", "part"),
    [
        pytest.param(*row, marks=pytest.mark.slow if i > 3 else ())
        for i, row in enumerate(TOPFORMER)
    ],
)
def test_topformer_rows(counter, table, label, part):
    cost = counter.count(find(table, label)).costs[part]
    parameters, gmacs = TOPFORMER[table, label, part]
    assert (cost.parameters, round(cost.macs / 1e9, 4)) == (parameters, gmacs)


@pytest.mark.slow
def test_which_topformer_figures_deviate(counter):
    """Each of them has its reason; Table 11's other figures are in modeling/test_retinanet.py."""
    counted = [counter.count(find(table, label)) for table, label, _ in TOPFORMER]
    found = {
        (c.row.table, c.row.label, *what): how
        for c in counted
        for what, how in c.agreements().items()
    }
    deviating = {where for where, how in found.items() if how == "different"}
    assert deviating == {
        ("1", "TopFormer-T, 448x448", "all", "gmacs"),
        ("1", "TopFormer-S", "all", "parameters"),
        ("10", "TopFormer-T", "head", "gmacs"),
    }
    assert all(find(*row[:2]).note for row in deviating)
    assert {where for where, how in found.items() if how == "cut"} == {
        ("9", "TopFormer-B", "head", "gmacs"),
        ("10", "TopFormer-B", "head", "gmacs"),
    }


def test_a_figure_that_only_fits_when_cut_is_marked(counter):
    printed = tables._format_table([counter.count(find("9", "TopFormer-B"))]).splitlines()
    assert re.split(r"  +", printed[3].strip()) == ["head", "0.081", "0.29", "0.300", "+3.3% ~"]
    assert printed[4:] == ["~ TopFormer-B, GMACs of head: cut, not rounded"]


def test_the_heads_of_lr_aspp_fit_a_classifier_at_stride_8():
    """The note beside them: 128 channels, and 0.390 G of each for the rest."""
    reported = [find(t, "LR-ASPP, MobileNetV3-s16").figures["head"]["gmacs"] for t in ("9", "10")]
    area = Decimal(480 * 480) / (512 * 512)
    per_class = (reported[1] - reported[0] / area) / (171 - 59) * 1000  # M at 512x512
    assert round(per_class, 2) == Decimal("0.53")
    classifier = Decimal(128 * 64 * 64) / 10**9
    assert round(classifier * 1000, 3) == Decimal("0.524")
    assert round(reported[1] - 171 * classifier, 3) == Decimal("0.390")
    assert round(reported[0] / area - 59 * classifier, 3) == Decimal("0.390")


def test_a_shared_model_is_counted_once(counter, monkeypatch):
    counter.count(find("1", "TopFormer-B"))
    monkeypatch.setattr(tables, "build_model", None)
    assert counter.count(find("5", "both")).costs["all"].parameters == 5_062_646


def test_missing_models_are_named(counter):
    searched = counter.count(find("1", "HR-NAS-A"))
    assert searched.costs == {} and "searched" in searched.missing
    row = tables.Row("1", "x", "no_such_config", {"all": {}}, 32, 32)
    assert counter.count(row).missing == "not in this toolkit: configs/no_such_config.yaml"
    row = tables.Row("1", "x", "seg_topformer_t", {"all": {}}, 32, 32, ["MODEL.NO.KEY", "1"])
    assert counter.count(row).missing == "not in this toolkit: MODEL.NO.KEY"


def test_every_row_is_printed_once(monkeypatch):
    cost = Cost(parameters=1_390_000, macs=576_000_000, activation_bytes=0)
    names = ("", "backbone", "sem_seg_head")
    monkeypatch.setattr(tables, "complexity", lambda *_: dict.fromkeys(names, cost))
    monkeypatch.setattr(tables, "build_model", lambda _: None)
    *printed, summary = format_tables()
    assert [text.splitlines()[0] for text in printed] == list(TITLES.values())
    for table, text in zip(TITLES, printed, strict=True):
        lines = [line for line in text.splitlines()[3:] if line[:2] not in ("- ", "! ", "~ ")]
        labels = [re.split(r"  +", line)[0] for line in lines if not line.startswith(" ")]
        assert labels == [row.label for row in ROWS if row.table == table]
        assert len(lines) == sum(len(row.figures) or 1 for row in ROWS if row.table == table)
    first = printed[0].splitlines()
    assert next(re.split(r"  +", x) for x in first if x.startswith("TopFormer-T  ")) == [
        *("TopFormer-T", "1.4", "1.390", "-0.7%", "0.6", "0.576", "-4.0%", "43", "32.8")
    ]
    assert next(re.split(r"  +", x) for x in first if x.startswith("HR-NAS-A  ")) == [
        *("HR-NAS-A", "2.5", "-", "1.4", "-", "33.2")
    ]
    # Of the base, both figures are now wrong, and there is no note.
    assert "-72.7% !" in next(x for x in first if x.startswith("TopFormer-B  "))
    assert "! TopFormer-B, M of all, GMACs of all: no reason is known" in first
    agreeing, total, close, rounded, cut, deviating, absent = map(int, NUMBERS.findall(summary))
    assert agreeing == close + rounded + cut == total - deviating - absent and deviating > 10
    assert total == sum(len(figures) for row in ROWS for figures in row.figures.values())
    # What the official repository reports are results alone.
    assert printed[-1].splitlines()[1].split() == ["mIoU", "reported"]


@pytest.mark.slow
def test_the_tool_prints_the_tables():
    done = topformer("analyze", "--tables")
    assert done.returncode == 0, done.stderr[-2000:]
    for title in TITLES.values():
        assert done.stdout.count(f"{title}\n") == 1
    deviating = [line for line in done.stdout.splitlines() if line.startswith("! ")]
    assert not [line for line in deviating if "no reason is known" in line]
    agreements = [int(number) for number in NUMBERS.findall(done.stdout.splitlines()[-2])]
    assert agreements == [92, 116, 69, 16, 7, 18, 6]
