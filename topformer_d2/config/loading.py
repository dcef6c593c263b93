"""Configs from files and by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from ..errors import InputError, did_you_mean
from ..files import is_remote
from ..logs import get_logger
from .checking import check_values
from .keys import add_topformer_config
from .merging import merge_file, merge_opts
from .zoo import is_model, list_models, model_files

logger = get_logger(__name__)

# Functions that load_config calls last, with the config. Packages that import this one, such as
# data, add theirs by @after_loading, so that this package need not import them.
_AFTER_LOADING: list[Callable[[CN], None]] = []
# Functions that describe_datasets calls; they are added by @when_building.
_WHEN_BUILDING: list[Callable[[CN], None]] = []


def after_loading(function: Callable[[CN], None]) -> Callable[[CN], None]:
    """Decorator: load_config calls `function` with the config that it has read."""
    _AFTER_LOADING.append(function)
    return function


def when_building(function: Callable[[CN], None]) -> Callable[[CN], None]:
    """Decorator: describe_datasets calls `function` with the config of a model that is built."""
    _WHEN_BUILDING.append(function)
    return function


def describe_datasets(cfg: CN) -> None:
    """Have Detectron2 know the datasets of a config that load_config may not have seen.

    Every builder of a backbone calls it, so it takes effect in other programs too.
    """
    for function in _WHEN_BUILDING:
        function(cfg)


def config_folder() -> Path:
    """The folder of the shipped configs: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent.parent
    installed = here / "configs"
    return installed if installed.is_dir() else here.parent / "configs"


def list_configs() -> list[str]:
    """Names that get_config takes, sorted."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))


def get_config(name: str | os.PathLike, opts: Sequence[str] = ()) -> CN:
    """A shipped config, ready to use: `get_config("seg_topformer_t")`.

    Args:
        name: file name below configs/, with or without ".yaml", or a model of list_models().
        opts: KEY VALUE pairs that override it, as on Detectron2's command lines.

    Returns:
        A mutable Detectron2 config whose MODEL.DEVICE fits this machine.

    Raises:
        InputError: no such config, or `opts` holds an unknown key or a value that it does not take.
    """
    name = os.fspath(name)
    if name in list_models():
        config_file, weights = model_files(name)
        return _load(config_file, opts, weights=weights)
    path = config_folder() / f"{name.removesuffix('.yaml')}.yaml"
    if not os.path.isfile(path):  # path.is_file() raises where a name is too long
        hint = did_you_mean(name, [*list_configs(), *list_models()])
        raise InputError(
            f"no config {name!r}{hint}; topformer_d2.list_configs() and list_models() name all"
        )
    return load_config(str(path), opts)


def load_config(
    config_file: str | os.PathLike, opts: Sequence[str] = (), *, allow_remote: bool = False
) -> CN:
    """Detectron2's defaults, the toolkit's keys, then `config_file`, then `opts`.

    The file is data, and so is every file that its `_BASE_` leads to: what asks for a Python object
    is refused (docs/security.md). The datasets of its DATASETS.FOLDERS are registered.

    Args:
        config_file: path of a YAML file, or the name of a model of list_models(), whose weights
            MODEL.WEIGHTS then names; "" = none.
        opts: KEY VALUE pairs.
        allow_remote: fetch files whose path has a scheme, such as https://.

    Raises:
        InputError: a file is missing or is not such a config, a key is unknown, a value is of the
            wrong type or out of its range, or DATASETS.FOLDERS is wrong.
    """
    config_file = os.fspath(config_file)
    if is_model(config_file):
        return get_config(config_file, opts)
    return _load(config_file, opts, allow_remote=allow_remote)


def _load(
    config_file: str, opts: Sequence[str], *, weights: str = "", allow_remote: bool = False
) -> CN:
    """As load_config of a file; `weights` are MODEL.WEIGHTS unless `opts` name others."""
    cfg = get_cfg()
    add_topformer_config(cfg)
    if config_file:
        _check_exists(config_file)
        merge_file(cfg, config_file, allow_remote=allow_remote)
    if weights:
        cfg.MODEL.WEIGHTS = weights
    merge_opts(cfg, opts)
    check_values(cfg)
    fit_device(cfg)
    for function in _AFTER_LOADING:
        function(cfg)
    return cfg


def _check_exists(config_file: str) -> None:
    """InputError of a file that is not there, with the shipped config or the model of that name."""
    if is_remote(config_file) or "\0" in config_file or os.path.lexists(config_file):
        return
    name = Path(config_file).name.removesuffix(".yaml")
    if name in list_configs():
        hint = f"; the shipped one is {config_folder() / name}.yaml"
    else:
        hint = did_you_mean(name, [*list_models(), *list_configs()])
    raise InputError(f"config file {config_file} does not exist{hint}")


def find_config(name: str, opts: Sequence[str] = ()) -> CN:
    """As load_config of a file, or as get_config where the name has no extension."""
    known = [*list_configs(), *list_models()]
    is_file = bool(Path(name).suffix) or (name not in known and os.path.lexists(name))
    return load_config(name, opts) if is_file else get_config(name, opts)


def fit_device(cfg: CN) -> None:
    """Fall back from a GPU that this machine lacks to the CPU, and say so in the log.

    Raises:
        InputError: MODEL.DEVICE is not the name of a device, or this machine lacks it.
    """
    name = cfg.MODEL.DEVICE
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as e:
        raise InputError(f"MODEL.DEVICE is {name!r}; it takes cpu, cuda or cuda:N") from e
    if device.type == "cuda":
        if not torch.cuda.is_available():
            logger.warning("MODEL.DEVICE is %r but there is no GPU: using the CPU", name)
            cfg.MODEL.DEVICE = "cpu"
        elif device.index is not None and device.index >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise InputError(f"MODEL.DEVICE is {name!r}; the last GPU here is 'cuda:{last}'")
        return
    try:
        torch.empty(1, device=device).cpu()
    except Exception as e:  # each device raises another type
        raise InputError(f"MODEL.DEVICE is {name!r}, which this machine lacks: use cpu") from e
