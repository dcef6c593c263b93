"""The trained models that come with the package: their configs, weights and cards."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean

_FOLDER = Path(__file__).resolve().parent.parent / "zoo"
_FILES = (".json", ".yaml", ".safetensors")  # of each model
_FIX = "install topformer_d2 again"


def list_models() -> list[str]:
    """Names of the trained models that come with the package, sorted.

    Predictor, get_config and the command's --model and --config-file take them.
    """
    return sorted({path.stem for path in _FOLDER.glob("*.*") if path.suffix in _FILES})


def model_card(name: str) -> dict[str, Any]:
    """What is known of a model: data and its licence, command, commit, seed, metrics, SHA-256.

    Raises:
        InputError: there is no such model, or its card was damaged.
    """
    known = list_models()
    if name not in known:
        raise InputError(f"no model {name!r}{did_you_mean(name, known)}; known: {known}")
    path = _FOLDER / f"{name}.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return {**card, "sha256": str(card["sha256"])}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{path} was damaged or changed ({e!r}): {_FIX}") from e


def model_files(name: str) -> tuple[str, str]:
    """Paths of a model's config and of its weights, whose SHA-256 is checked.

    Raises:
        InputError: there is no such model, or its files are missing or have been changed.
    """
    card = model_card(name)
    config, weights = (_FOLDER / f"{name}{end}" for end in (".yaml", ".safetensors"))
    for path in (config, weights):
        if not path.is_file():
            raise InputError(f"{path} is missing: {_FIX}")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != card["sha256"]:
        raise InputError(
            f"{weights} was damaged or changed (its SHA-256 is not that of {name}.json): {_FIX}"
        )
    return str(config), str(weights)


def is_model(name: str) -> bool:
    """Whether `name` is of a model, and not of a file in the working directory."""
    return name in list_models() and not os.path.isfile(name)
