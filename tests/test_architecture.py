"""The floors of docs/architecture.md: a module imports only modules of lower floors."""

import ast
import re
from pathlib import Path

from tests.helpers import REPOSITORY

PACKAGE = REPOSITORY / "topformer_d2"
PAGE = (REPOSITORY / "docs/architecture.md").read_text()
FLOORS = (
    ("errors", "tasks", "install_detectron2"),
    ("logs", "files"),
    ("config",),
    ("data",),
    ("modeling",),
    ("checkpoint",),
    ("inference",),
    ("evaluation", "visualization"),
    ("engine",),
    ("export",),
    ("analysis",),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, such as "data.images"."""
    folder = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*folder[: len(folder) - node.level + 1], *(node.module or "").split(".")]
            base = ".".join(part for part in base if part)
            found |= {base} if base else {alias.name for alias in node.names}
    return found


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
