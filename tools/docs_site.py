"""Hooks of mkdocs.yml: pages that are made from the code, and links that are right on the site.

The pages in docs/ link to each other and to files of the repository by relative paths, so that they
work in the repository's web view. The site has those files at other places; `_site_path` says
where. The reference is made at each build from the code itself. Of the package only modules without
dependencies are imported, so that neither PyTorch nor Detectron2 need be installed.
"""

from __future__ import annotations

import ast
import importlib
import posixpath
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "topformer_d2"
# Pages of the site that stand outside docs/ in the repository.
MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "datasets/README.md": "datasets.md",
}
# The packages whose `__all__` is documented.
PACKAGES = (
    *("inference", "export", "config", "data", "modeling", "checkpoint", "engine", "evaluation"),
    "visualization",
)
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
# Such as "tiny | small (a note) | base" at the end of a comment.
_CHOICES = re.compile(r"[:,]? ?((?:\w+(?: \([^)]*\))? \| )+\w+(?: \([^)]*\))?)$")
_KEY = re.compile(r"(?<![\w.`])[A-Z][A-Z0-9]+(?:\.[A-Z0-9_]+)+(?![\w`])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside docs/, the configs, and the reference."""
    pages = {site: (ROOT / source).read_text("utf-8") for source, site in MOVED.items()}
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        pages[path.relative_to(ROOT).as_posix()] = path.read_text("utf-8")
    pages["reference/config_keys.md"] = config_page()
    pages["reference/command.md"] = command_page()
    pages |= {f"reference/{name}.md": api_page(name) for name in PACKAGES}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links to files of the repository to where the site has them."""
    here = page.file.src_uri
    source = next((old for old, new in MOVED.items() if new == here), f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        if not (ROOT / target).exists():
            return link[0]
        to = posixpath.relpath(_site_path(target), posixpath.dirname(here) or ".")
        return f"]({to}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


def _site_path(path: str) -> str:
    """Of a file of the repository."""
    return MOVED.get(path, path.removeprefix("docs/"))


def api_page(name: str) -> str:
    """All public names of a package, for mkdocstrings."""
    tree = ast.parse((PACKAGE / name / "__init__.py").read_text("utf-8"))
    about = (ast.get_docstring(tree) or "").replace("\n", " ")
    (public,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    entries = [f"::: topformer_d2.{name}.{each}" for each in public]
    return "\n\n".join([f"# topformer_d2.{name}", about, *entries, ""])


def command_page() -> str:
    """The verbs of the command, each with the text that its --help begins with."""
    tree = ast.parse((PACKAGE / "cli/__init__.py").read_text("utf-8"))
    (verbs,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERBS"
    )
    parts = ["# The command", "`topformer VERB --help` lists the options of a verb."]
    for verb, (module, about) in verbs.items():
        text = ast.get_docstring(ast.parse((PACKAGE / f"cli/{module}.py").read_text("utf-8")))
        parts += [
            f"## topformer {verb}",
            f"{about[0].upper()}{about[1:]}.",
            f"```text\n{text}\n```",
        ]
    return "\n\n".join([*parts, ""])


@dataclass
class Key:
    """A config key of add_topformer_config: its name, its default as code, and its comment."""

    name: str
    default: str
    comment: str

    @property
    def is_node(self) -> bool:
        return self.default == "CN()"

    @property
    def node(self) -> str:
        """The node of the config that a key belongs to; of a node, itself."""
        return self.name if self.is_node else self.name.rpartition(".")[0]


def config_keys() -> Iterator[Key]:
    """The keys that the modules of topformer_d2/config add, in their order."""
    yield from _keys_of("config/keys.py", "add_topformer_config")
    yield from _keys_of("config/input_keys.py", "add_input_config")
    yield from _keys_of("config/loss_keys.py", "add_loss_config")


def _keys_of(file: str, name: str) -> Iterator[Key]:
    """The keys that a function of a module assigns.

    A comment belongs to the assignments below it, up to the next comment or empty line.
    """
    path = PACKAGE / file
    lines = path.read_text("utf-8").splitlines()
    (function,) = (
        node
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    assignments = {
        node.lineno: node
        for node in function.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("cfg.")
    }
    comment: list[str] = []
    was_comment = False
    for number in range(function.lineno, (function.end_lineno or 0) + 1):
        line = lines[number - 1].strip()
        if line.startswith("#"):
            comment = [*comment, line[1:].strip()] if was_comment else [line[1:].strip()]
        elif not line:
            comment = []
        elif number in assignments:
            node = assignments[number]
            key = ast.unparse(node.targets[0]).removeprefix("cfg.")
            yield Key(key, ast.unparse(node.value), " ".join(comment))
        was_comment = line.startswith("#")


# Keys that take the names of a registry, with what Detectron2 itself has there. A program may
# register more.
_REGISTRIES = {
    "MODEL.META_ARCHITECTURE": ("META_ARCH_REGISTRY", ("SemanticSegmentor", "RetinaNet")),
    "MODEL.BACKBONE.NAME": ("BACKBONE_REGISTRY", ()),
    "MODEL.SEM_SEG_HEAD.NAME": ("SEM_SEG_HEADS_REGISTRY", ()),
    "MODEL.SEM_SEG_HEAD.LOSS": ("SEGMENTATION_LOSS_REGISTRY", ()),
}
# Other names, which are not in a table of the code.
_NAMES = {
    "SOLVER.SCHEDULE": '"WarmupPolyLR" or ""',
    "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR, or one of Detectron2's: WarmupCosineLR, "
    "WarmupMultiStepLR",
    "MODEL.BASELINE.NAME": "a name of the backbone's library",
    "DATASETS.FOLDERS": "an entry for each dataset, of paths by these keys",
}


def registered_names() -> dict[str, str]:
    """The values that a key with registered names takes, in words, by the key."""
    found: dict[str, list[str]] = {}
    for path in sorted((PACKAGE / "modeling").rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            for decorator in getattr(node, "decorator_list", ()):
                registry, _, call = ast.unparse(decorator).partition(".")
                if call == "register()":
                    found.setdefault(registry, []).append(node.name)
    takes = {}
    for key, (registry, of_detectron2) in _REGISTRIES.items():
        names = ", ".join((*sorted(found[registry]), *of_detectron2))
        takes[key] = f"a name registered in {registry}: {names}"
    return takes


def variants_table() -> str:
    """What each MODEL.TOPFORMER.VARIANT sets where a key is None."""
    variants = _import("modeling.backbone.variants").VARIANTS
    rows = [f"| key | {' | '.join(variants)} |", "|---" * (len(variants) + 1) + "|"]
    for field in next(iter(variants.values())).__dataclass_fields__:
        values = [getattr(variant, field) for variant in variants.values()]
        shown = [", ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values]
        rows.append(f"| {_VARIANT_KEYS.get(field, field.upper())} | {' | '.join(shown)} |")
    return "\n".join(rows)


# The field of a variant that is not a key of MODEL.TOPFORMER.
_VARIANT_KEYS = {"fuse_depthwise": "`MODEL.SEM_SEG_HEAD.FUSE_DEPTHWISE`"}


def config_page() -> str:
    """All keys that the toolkit adds, then the ranges of Detectron2's keys that it reads."""
    ranges = _import("config.ranges").RANGES | registered_names() | _NAMES
    keys = list(config_keys())
    parts = [
        "# Config keys",
        "The keys that topformer_d2 adds to Detectron2's. A value outside its range ends the "
        "command before anything runs, with one line that names the key. A default of `None` means "
        "that `MODEL.TOPFORMER.VARIANT` sets the value.",
    ]
    nodes: dict[str, list[Key]] = {}
    for key in keys:
        nodes.setdefault(key.node, []).append(key)
    for node, members in nodes.items():
        parts.append(f"## {node}")
        for key in members:
            if key.is_node:
                parts.append(_as_markdown(key.comment))
                if node == "MODEL.TOPFORMER":
                    parts += ["What a variant sets where a key is None:", variants_table()]
                continue
            default = "{}" if key.default.startswith("CN(") else key.default.replace("'", '"')
            parts += [
                f"### {key.name.rpartition('.')[2]}",
                f"`{key.name}`, default `{default}`; takes {_as_markdown(_takes(key, ranges))}.",
                _as_markdown(_CHOICES.sub(".", key.comment)),
            ]
    own = {key.name for key in keys}
    rows = [
        f"| `{name}` | {_as_markdown(str(r))} |" for name, r in ranges.items() if name not in own
    ]
    parts += [
        "## Keys of Detectron2",
        "Detectron2's documentation says what they mean. The toolkit checks their values as well:",
        "\n".join(["| key | takes |", "|---|---|", *rows]),
        "",
    ]
    return "\n\n".join(part for part in parts if part or part is parts[-1])


def _takes(key: Key, ranges: dict[str, object]) -> str:
    """The values of a key in words; those without a range are checked where they are used."""
    if key.name in ranges:
        return str(ranges[key.name])
    if choices := _CHOICES.search(key.comment):
        return f"one of {choices[1].replace(' | ', ', ')}"
    if key.default in ("True", "False"):
        return "True or False"
    if key.default == "None":
        several = key.name.rpartition(".")[2].startswith("BLOCK_")
        kind = "a list of integers, one for each block," if several else "an integer"
        return f"None, or {kind} as in the table of the variants"
    if key.default == "[]":
        return "a list of names"
    raise ValueError(f"{key.name}: the reference does not say what it takes")


def _as_markdown(text: str) -> str:
    """A comment of the code: its config keys as code, and its other signs as they are."""
    text = re.sub(r"([*<>\[\]])", r"\\\1", text).replace("|", "&#124;")
    return _KEY.sub(lambda key: f"`{key[0]}`", text)


def _import(module: str) -> types.ModuleType:
    """A module of topformer_d2 without dependencies; the packages around it are not imported."""
    parts = ["_topformer_d2", *module.split(".")]
    for length in range(1, len(parts)):
        shell = types.ModuleType(".".join(parts[:length]))
        shell.__path__ = [str(PACKAGE.joinpath(*parts[1:length]))]
        sys.modules.setdefault(shell.__name__, shell)
    return importlib.import_module(".".join(parts))
