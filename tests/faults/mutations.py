"""Bytes and values that are not what they should be, from a seed."""

from __future__ import annotations

import json
import random
from typing import Any

# Values that have broken readers of numbers, texts and lists.
VALUES = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, -0.0, 1e-320, 1e39, 1e308),
    *(
        float("nan"),
        float("inf"),
        "",
        " ",
        "\x00",
        "\x1b[31m",
        "../../x",
        "/etc/passwd",
        "ü" * 5000,
    ),
    *("1e-3", "nan", [], [[]], {}, [None], {"": None}, "\u202etxt", list(range(1000))),
)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """A damaged copy: cut, flipped, overwritten, doubled, or with a hostile piece in it."""
    data = bytearray(content)
    kind = rng.choice(["cut", "flip", "zero", "insert", "double", "swap", "head", "empty"])
    if kind == "empty" or not data:
        return b"" if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 200))
    place = rng.randrange(len(data))
    if kind == "cut":
        return bytes(data[:place])
    if kind == "flip":
        for _ in range(rng.choice([1, 4, 100, 4000])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        data[place : place + rng.randrange(1, 500)] = bytes(rng.randrange(1, 500))
    elif kind == "insert":
        data[place:place] = rng.randbytes(rng.randrange(1, 500))
    elif kind == "double":
        data += data[: place + 1]
    elif kind == "swap":
        other = rng.randrange(len(data))
        data[place : place + 50], data[other : other + 50] = (
            data[other : other + 50],
            data[place : place + 50],
        )
    else:  # the header, where sizes and types are
        data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
    return bytes(data)


def mutate_values(content: Any, rng: random.Random) -> Any:
    """A copy of nested dicts and lists in which one to three places have been changed."""
    copy = json.loads(json.dumps(content))
    for _ in range(rng.randrange(1, 4)):
        holder, key = _some_place(copy, rng)
        if holder is None:
            return rng.choice(VALUES)
        kind = rng.choice(["value", "value", "value", "remove", "add", "type", "double"])
        if kind == "remove":
            del holder[key]
        elif kind == "add" and isinstance(holder, dict):
            holder[rng.choice(["x", "", "id", "\x00"])] = rng.choice(VALUES)
        elif kind == "type":
            holder[key] = str(holder[key]) if rng.random() < 0.5 else [holder[key]]
        elif kind == "double" and isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[key] = rng.choice(VALUES)
        if not isinstance(copy, (dict, list)) or not copy:
            return copy
    return copy


def _some_place(content: Any, rng: random.Random) -> tuple[Any, Any]:
    holder, key = None, None
    while isinstance(content, (dict, list)) and content:
        key = (
            rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
        )
        holder, content = content, content[key]
        if rng.random() < 0.25:
            break
    return holder, key


def hostile_json(content: Any, rng: random.Random) -> bytes:
    """JSON with a changed value, or damaged, or of a kind that readers choke on."""
    kind = rng.choice(["values"] * 6 + ["bytes", "deep", "bom", "surrogate", "digits"])
    if kind == "deep":
        return rng.choice([b"[", b'{"a":']) * 100_000
    data = json.dumps(mutate_values(content, rng)).encode()
    if kind == "bytes":
        return mutate_bytes(data, rng)
    if kind == "bom":
        return b"\xef\xbb\xbf" + data
    if kind == "surrogate":
        return data.replace(b'"', b'"\\ud800', 1 + 2 * rng.randrange(4))
    if kind == "digits":
        return data.replace(b"1", b"9" * rng.choice([400, 5000]), 1)
    return data
