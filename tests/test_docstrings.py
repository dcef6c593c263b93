"""What docstrings say of parameters; `make docs` ends at one that it does not find."""

import ast
import re

from tests.helpers import REPOSITORY

_FILES = sorted((REPOSITORY / "topformer_d2").rglob("*.py"))
_ARGS = re.compile(r"^Args:\n((?: {4}.*\n?|\n)*)", re.M)


def entries(docstring: str) -> list[str]:
    """What stands before the colons under `Args:`; "a, b" for two parameters in one entry."""
    section = _ARGS.search(docstring)
    return re.findall(r"^ {4}(\S[^:\n]*):", section[1], re.M) if section else []


def named_parameters(docstring: str) -> list[str]:
    """The names under `Args:`, without the stars of `*args` and `**keys`."""
    return [name.strip().lstrip("*") for entry in entries(docstring) for name in entry.split(",")]


def parameters(function: ast.FunctionDef) -> set[str]:
    a = function.args
    stars = [each for each in (a.vararg, a.kwarg) if each]
    return {each.arg for each in (*a.posonlyargs, *a.args, *a.kwonlyargs, *stars)}


def undocumented(tree: ast.AST) -> list[str]:
    """Names under `Args:` that are not parameters; those of a class are its __init__'s."""
    wrong = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        of_class = isinstance(node, ast.ClassDef)
        functions = [
            each
            for each in (node.body if of_class else [node])
            if isinstance(each, ast.FunctionDef) and each.name in ("__init__", node.name)
        ]
        known = set().union(*map(parameters, functions))
        named = named_parameters(ast.get_docstring(node) or "")
        wrong += [f"{node.name}: {name}" for name in named if name not in known]
    return wrong


def test_every_documented_argument_is_a_parameter():
    found = {path: undocumented(ast.parse(path.read_text("utf-8"))) for path in _FILES}
    assert not {path.name: wrong for path, wrong in found.items() if wrong}


def test_a_name_that_is_not_a_parameter_is_found():
    code = (
        "def f(a, *b, c=1, **d):\n    '''X.\n\n    Args:\n        a, b: x\n        e: x: y\n    '''"
    )
    assert undocumented(ast.parse(code)) == ["f: e"]
