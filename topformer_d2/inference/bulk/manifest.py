"""What a folder of results was made with, so that nothing else is written among them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ... import __version__
from ...checkpoint.files import local_file
from ...config import find_config, flat_keys
from ...errors import InputError, shortened
from ...files import read_json, write_json
from ...logs import get_logger
from ..formats import files_of, runtimes_of
from ..model_info import ModelInfo

logger = get_logger(__name__)

MANIFEST = "manifest.json"
# What predictions read of a config beside the keys below MODEL.
_COMPARED = (
    *("INPUT.FORMAT", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "INPUT.TEST_SIZE_DIVISOR"),
    "TEST.DETECTIONS_PER_IMAGE",
)
_OF_CONFIG = "model.config."
_LIBRARIES = (
    *("torch", "numpy", "opencv-python-headless", "pillow", "onnxruntime", "openvino", "ncnn"),
    *("mnn", "ai-edge-litert", "executorch", "coremltools", "ray"),
)


def identify_model(
    model: CfgNode | str | os.PathLike, weights: str | os.PathLike | None = None, **keys: Any
) -> dict[str, Any]:
    """What tells one model from another: hashes of its files, its config and how it is run.

    Args:
        model, weights: as Predictor takes them.
        keys: further values that change predictions, such as a tile size.

    Returns:
        plain values, for JSON: "sha256" of an exported model's files; or "config" with those keys
        by their whole names on which predictions depend, "category_ids" of boxes (None = there are
        none) and "weights_sha256"; and `keys`.

    Raises:
        InputError: a file cannot be read, or a remote one not be fetched.
    """
    if not isinstance(model, CfgNode) and runtimes_of(Path(model).suffix.lower()):
        return {"sha256": _hash(*files_of(Path(model))), **keys}
    cfg = model if isinstance(model, CfgNode) else find_config(os.fspath(model))
    flat = {key: value for key, value in flat_keys(cfg) if _changes_predictions(key)}
    config = json.loads(json.dumps(flat, default=str, sort_keys=True))
    found = _hash(Path(local_file(os.fspath(weights or cfg.MODEL.WEIGHTS))))
    ids = ModelInfo.from_config(cfg).objects.ids  # which the registered datasets give
    return {"weights_sha256": found, "config": config, "category_ids": ids, **keys}


def _changes_predictions(key: str) -> bool:
    """Whether a config's key may do so; what is in the weights is compared, not where they are."""
    if key.startswith("MODEL."):
        return key != "MODEL.WEIGHTS" and "LOSS" not in key
    return key in _COMPARED


def _hash(*paths: Path) -> str:
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as f:
            while chunk := f.read(1 << 20):
                found.update(chunk)
    return found.hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of this package and of the libraries that have a part in predictions."""
    found = {"topformer_d2": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def open_manifest(output: Path, made_of: Mapping[str, Any]) -> None:
    """Write the manifest of a new folder, or check that an earlier one is of the same run.

    A manifest without a partition beside it is of a run that came to nothing, and is replaced.
    Other versions of libraries are told in the log, and noted. As another version of this package
    may have other keys in its configs, keys that one of them alone has are not compared.

    Args:
        output: the folder.
        made_of: what the results depend on: "model", "settings" and "inputs", as plain values.

    Raises:
        InputError: the folder has results of another model, config, settings or inputs, and the
            message names what differs; or results without a manifest, or with a damaged one.
    """
    path, versions = output / MANIFEST, library_versions()
    made_of = json.loads(json.dumps(made_of))  # as they are read again
    parts = sorted(output.glob("part-*"))
    earlier = _read_manifest(path) if path.exists() else None
    if not parts:
        write_json(path, {**made_of, "versions": [versions], "counts": None}, indent=1)
        return
    if earlier is None:
        raise InputError(
            f"{parts[0]} is there, and {path} is not, which says what made it: name another "
            "`output`, or remove the partitions"
        )
    _check_same(path, made_of, earlier)
    if versions not in earlier["versions"]:
        logger.warning("%s: the rest is predicted by other versions of libraries", path)
        write_json(path, {**earlier, "versions": [*earlier["versions"], versions]}, indent=1)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found: Any = read_json(os.fspath(path))
    except InputError as e:
        raise InputError(f"{e}. Name another `output`, or remove the folder {path.parent}") from e
    if not isinstance(found, dict) or not isinstance(found.get("versions"), list):
        raise InputError(f"{path} is no manifest of a prediction: name another `output`")
    return found


def _check_same(path: Path, made_of: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    now, then = (
        {key: value for name in made_of for key, value in flat_keys({name: each.get(name)})}
        for each in (made_of, earlier)
    )
    of_one = {key for key in now.keys() ^ then.keys() if key.startswith(_OF_CONFIG)}
    keys = [k for k in sorted({*now, *then} - of_one) if now.get(k) != then.get(k)]
    if not keys:
        return
    differing = [
        f"{key} is {shortened(now.get(key))} and was {shortened(then.get(key))}" for key in keys
    ]
    more = f", and {len(keys) - 4} more" if len(keys) > 4 else ""
    fix = "Name another `output`, or remove that one"
    if set(keys) <= {"inputs.count", "inputs.sha256"}:
        fix = (
            "Name another `output`; it may be of the new images alone, by a .txt of their paths as "
            "the input"
        )
    raise InputError(
        f"{path.parent} has the predictions of another run: {'; '.join(differing[:4])}{more}. {fix}"
    )


def note_counts(output: Path, counts: Mapping[str, int]) -> None:
    """Write into the manifest how many images there are, at the end."""
    path = output / MANIFEST
    write_json(path, {**read_json(os.fspath(path)), "counts": dict(counts)}, indent=1)
