"""What tools/docs_site.py makes of the code. It is loaded without MkDocs, which `make docs` has."""

import dataclasses
import importlib
import inspect
import sys
import types

import pytest
from detectron2.config import get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

from tests.helpers import REPOSITORY
from tests.test_docstrings import entries
from topformer_d2 import add_topformer_config
from topformer_d2.config.keys import _toolkit_keys
from topformer_d2.config.ranges import RANGES
from topformer_d2.modeling import SEGMENTATION_LOSS_REGISTRY
from topformer_d2.modeling.backbone.variants import VARIANTS, Variant


@pytest.fixture
def docs_site(monkeypatch):
    for name in ("config.defaults", "structure.files", "structure.pages"):
        stand_in = types.ModuleType(f"mkdocs.{name}")
        stand_in.MkDocsConfig = stand_in.File = stand_in.Files = stand_in.Page = object
        monkeypatch.setitem(sys.modules, f"mkdocs.{name}", stand_in)
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    import docs_site

    yield docs_site
    for name in [name for name in sys.modules if name.startswith(("docs_site", "_topformer_"))]:
        del sys.modules[name]


def leaves(node, prefix=""):
    """Dotted names and values of a config's keys; an empty node counts as a key."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_key_is_there_with_its_default_and_a_meaning(docs_site):
    keys = [key for key in docs_site.config_keys() if not key.is_node]
    cfg = get_cfg()
    add_topformer_config(cfg)
    values = dict(leaves(cfg))
    assert {name for name, _ in leaves(_toolkit_keys())} <= {key.name for key in keys}
    for key in keys:
        assert key.default.startswith("CN(") or eval(key.default, {}) == values[key.name], key.name
        assert len(key.comment) > 10, key.name


def test_the_page_has_the_ranges(docs_site):
    page = docs_site.config_page()
    own = {key.name for key in docs_site.config_keys()}
    for name, rule in RANGES.items():
        assert f"`{name}`" in page
        if name not in (own | {"SOLVER.LR_SCHEDULER_NAME"}):
            assert f"| `{name}` | {docs_site._as_markdown(str(rule))} |" in page
    assert "`SOLVER.EMA_DECAY`, default `0.0`; takes a number, 0 or more and below 1." in page
    for node in (key for key in docs_site.config_keys() if key.is_node):
        assert len(node.comment) > 10, node.name
    assert '`MODEL.TOPFORMER.VARIANT`, default `"base"`; takes one of tiny, small, base.' in page


def test_names_that_a_key_takes_are_those_that_are_registered(docs_site):
    registries = (META_ARCH_REGISTRY, BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY)
    told = docs_site.registered_names()
    for key, registry in zip(told, (*registries, SEGMENTATION_LOSS_REGISTRY), strict=True):
        names = told[key].partition(": ")[2].split(", ")
        known = {name: each.__module__ for name, each in registry}
        assert set(names) <= set(known)
        assert {n for n, module in known.items() if module.startswith("topformer_d2.")} <= set(
            names
        )
    page = docs_site.config_page()
    assert "PixelCrossEntropy" in page and "build_retinanet_topformer_lite_backbone" in page


def test_norms_are_detectron2s(docs_site):
    (key,) = (key for key in docs_site.config_keys() if key.name == "MODEL.TOPFORMER.NORM")
    names = docs_site._takes(key, {}).removeprefix("one of ").split(", ")
    assert len(names) == 7 and all(get_norm(name.split()[0], 32) for name in names)


def test_the_variants_are_those_of_the_code(docs_site):
    rows = [row.strip("| ").split(" | ") for row in docs_site.variants_table().splitlines()]
    assert rows[0] == ["key", *VARIANTS] and len(rows) == 2 + len(dataclasses.fields(Variant))
    assert ["NUM_HEADS", "4", "6", "8"] in rows and ["SIM_CHANNELS", "128", "192", "256"] in rows


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "docs/deploy.md#export", "deploy.md#export"),
        ("index.md", "CHANGELOG.md", "changelog.md"),
        ("custom_data.md", "../configs/custom_detection.yaml", "configs/custom_detection.yaml"),
        ("tutorials/extend.md", "../architecture.md", "../architecture.md"),
        ("tutorials/extend.md", "../../CONTRIBUTING.md", "../contributing.md"),
        ("datasets.md", "../docs/custom_data.md", "custom_data.md"),
        ("index.md", "https://arxiv.org/abs/2204.05525", "https://arxiv.org/abs/2204.05525"),
    ],
)
def test_links_lead_to_the_same_page_on_the_site(docs_site, page, link, expected):
    shown = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=page))
    assert docs_site.on_page_markdown(f"[x]({link})", page=shown) == f"[x]({expected})"


def test_every_page_of_the_api_is_of_public_names(docs_site):
    for name in docs_site.PACKAGES:
        assert f"# topformer_d2.{name}" in docs_site.api_page(name)
    assert "::: topformer_d2.inference.Predictor" in docs_site.api_page("inference")


def shown(package):
    """What a package's page shows: (the name of a function, class or method, its docstring)."""
    module = importlib.import_module(f"topformer_d2.{package}")
    for name in module.__all__:
        each = getattr(module, name)
        yield name, each.__doc__
        if inspect.isclass(each):
            members = {k: v for k, v in vars(each).items() if k == "__init__" or k[0] != "_"}
            yield from ((f"{name}.{k}", v.__doc__) for k, v in members.items())


def test_public_docstrings_have_no_joint_entries(docs_site):
    """mkdocstrings takes "a, b: ..." for one parameter of that name."""
    for package in docs_site.PACKAGES:
        found = {name: entries(inspect.cleandoc(text or "")) for name, text in shown(package)}
        assert any(found.values()), package
        assert not {name: each for name, each in found.items() if "," in "".join(each)}
