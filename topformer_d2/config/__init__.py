"""Config keys with their ranges, safe config files, and the shipped configs by name."""

from .checking import check_values
from .files import read_config
from .keys import add_topformer_config, complete_config
from .loading import (
    after_loading,
    config_folder,
    describe_datasets,
    find_config,
    fit_device,
    get_config,
    list_configs,
    load_config,
    when_building,
)
from .loss_keys import changed_loss_keys
from .merging import flat_keys
from .model import (
    SCHEDULE_FALLBACK,
    check_dense,
    check_parts,
    model_tasks,
    schedule_name,
    single_task_opts,
)
from .unused import keys_without_effect
from .zoo import is_model, list_models, model_card, model_files

__all__ = [
    "SCHEDULE_FALLBACK",
    "add_topformer_config",
    "after_loading",
    "changed_loss_keys",
    "check_dense",
    "check_parts",
    "check_values",
    "complete_config",
    "config_folder",
    "describe_datasets",
    "find_config",
    "fit_device",
    "flat_keys",
    "get_config",
    "is_model",
    "keys_without_effect",
    "list_configs",
    "list_models",
    "load_config",
    "model_card",
    "model_files",
    "model_tasks",
    "read_config",
    "schedule_name",
    "single_task_opts",
    "when_building",
]
