"""What docs/architecture.md says of modules: imports from lower floors, and who reads a config."""

import ast
import re
from pathlib import Path

from tests.helpers import REPOSITORY

PACKAGE = REPOSITORY / "topformer_d2"
PAGE = (REPOSITORY / "docs/architecture.md").read_text()
FLOORS = (
    ("errors", "tasks", "install_detectron2"),
    ("logs", "files", "native"),
    ("config",),
    ("data",),
    ("modeling",),
    ("checkpoint",),
    ("inference",),
    ("evaluation", "visualization"),
    ("engine",),
    ("export",),
    ("analysis", "web"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, such as "data.images"."""
    return imports_of(path.read_text(), path.relative_to(PACKAGE).parent.parts)


def imports_of(code: str, folder: tuple[str, ...]) -> set[str]:
    """The same of code in a folder of the package, by relative and by absolute imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            above = (PACKAGE.name, *folder)[: len(folder) - node.level + 2] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            found |= (
                {f"{base}.{alias.name}" for alias in node.names} if base == PACKAGE.name else {base}
            )
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    inside = f"{PACKAGE.name}."
    return {name.removeprefix(inside) for name in found if name.startswith(inside)}


def test_imports_are_found_however_they_are_written():
    code = (
        "from .. import api\nfrom ..data import images\nfrom .a import b\nfrom . import c\n"
        "import topformer_d2.cli.train\nimport numpy.linalg, topformer_d2.engine as e\n"
        "def f():\n    from topformer_d2 import export\n    from topformer_d2.files.room import x\n"
    )
    assert imports_of(code, ("config",)) == {
        *("api", "data", "config.a", "config", "cli.train", "engine", "export", "files.room"),
    }


def test_no_module_imports_from_a_higher_floor():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        room = parts[0]
        if room not in FLOOR_OF:
            assert parts in {("__init__",), ("__main__",), ("api",)}, f"{room} is on no floor"
            continue
        for name in imports(path):
            other = name.partition(".")[0]
            if other != room and FLOOR_OF.get(other, -1) >= FLOOR_OF[room]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


# Classes that stand for a whole run or a whole model.
TAKE_A_CONFIG = {"Trainer", "RecoveringTrainer", "TorchBackend", "Predictor"}


def test_only_from_config_methods_of_classes_read_a_config():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for each in ast.walk(ast.parse(path.read_text())):
            if isinstance(each, ast.ClassDef):
                found |= {each.name for method in each.body if takes_config(method)}
    assert found == TAKE_A_CONFIG
    assert all(f"`{name}`" in PAGE for name in TAKE_A_CONFIG)


def takes_config(method: ast.stmt) -> bool:
    if not isinstance(method, ast.FunctionDef) or method.name == "from_config":
        return False
    arguments = (*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs)
    hints = [ast.unparse(each.annotation) if each.annotation else "" for each in arguments]
    return any(each.arg == "cfg" for each in arguments) or any("CfgNode" in h for h in hints)


def test_the_page_names_every_room_and_only_tests_that_exist():
    for room in set(FLOOR_OF) - {"install_detectron2"}:
        assert f"`{room}`" in PAGE, room
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) == 5
    for file, test in named:
        assert f"def {test}(" in (REPOSITORY / file).read_text()
    for path in re.findall(
        r"`((?:data|engine|modeling|inference|cli|evaluation)/[\w/.]*)[`,]", PAGE
    ):
        assert (PACKAGE / path).exists(), path
