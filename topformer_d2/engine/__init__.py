"""Training: the recipe's optimizer, exact resuming, and recovery from failed iterations."""

from .failures import describe_death
from .setup import end_logs, setup_run
from .solver import WarmupPoly, build_lr_scheduler, build_optimizer, scale_to_batch
from .stopping import StopRequested
from .teachers import attach_teachers
from .trainer import Trainer

__all__ = [
    "StopRequested",
    "Trainer",
    "WarmupPoly",
    "attach_teachers",
    "build_lr_scheduler",
    "build_optimizer",
    "describe_death",
    "end_logs",
    "scale_to_batch",
    "setup_run",
]
