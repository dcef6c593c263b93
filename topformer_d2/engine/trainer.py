"""Detectron2's DefaultTrainer with the toolkit's data, solver, evaluators and exact resume."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter
from torch import nn

from ..checkpoint import SafeCheckpointer
from ..config import check_values, complete_config, model_tasks
from ..data import build_test_loader, build_train_loader
from ..errors import InputError, is_out_of_memory
from ..evaluation import (
    build_evaluator,
    check_needs,
    evaluate_with_tta,
    evaluator_type,
    needs_of,
)
from ..evaluation.folders import inference_folder, tta_folder
from ..evaluation.tta import build_resizes
from ..files import locked_output
from ..inference import LabelMapModel
from ..logs import get_logger
from ..modeling import adapt, freeze_parts
from ..modeling.build import checking_parts, finish_model
from ..modeling.meta_arch import keeps_contract
from .charts import draw_evaluation_charts
from .class_weights import with_class_weights
from .epochs import epochs_to_iterations
from .hook_list import build_hooks
from .hooks import SeedEachStep
from .loggers import build_writers, check_loggers
from .processes import check_single_run
from .recovery import RecoveringTrainer
from .restarts import taking_firsts_checkpoint
from .resuming import (
    OF_OPTIMIZER,
    check_same_training,
    check_state,
    training_keys,
    warn_of_changes,
    warn_of_earlier_run,
)
from .setup import write_config
from .solver import (
    batch_scale,
    build_lr_scheduler,
    build_optimizer,
    check_solver,
    scale_to_batch,
)
from .teachers import attach_teachers, check_teachers_are_kept, teacher_digests
from .train_loop import AccumulatingTrainer

logger = get_logger(__name__)


class Trainer(RecoveringTrainer):
    """Trains what a config describes; a resumed run goes on as if it had never been stopped.

    Everything random follows from one seed: SEED, or with SEED = -1 one drawn at the start and kept
    in the checkpoints. On a CPU a resumed run's losses are equal to the bit; on a GPU as far as
    PyTorch's kernels are deterministic.
    """

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: a Detectron2 config with the toolkit's keys.

        Raises:
            InputError: a value out of its range, mixed precision without a GPU, a batch that cannot
                be split, a test dataset that build_evaluator does not know, where no subclass
                overrides that, or test-time augmentation of a detector.
        """
        check_single_run()
        self._evaluated = 0  # iterations that were done at the last evaluation
        cfg = complete_config(cfg)
        check_values(cfg)
        check_teachers_are_kept(cfg)
        cfg = with_class_weights(cfg)
        self._config = cfg.dump()  # as it was given, before anything is scaled
        if self._has_own_evaluators():
            for name in cfg.DATASETS.TEST:
                evaluator_type(name)
        if cfg.TEST.AUG.ENABLED:
            build_resizes(cfg)
        given = cfg
        cfg = self.auto_scale_workers(scale_to_batch(given), comm.get_world_size())
        # How much shorter an iteration is than the config's; a resumed run must count in the same.
        by_processes = cfg.SOLVER.IMS_PER_BATCH / max(1, given.SOLVER.IMS_PER_BATCH)
        self._batch_scale = batch_scale(given) * by_processes
        check_solver(cfg)
        check_loggers(cfg)
        if cfg.SEED < 0:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SEED = comm.shared_random_seed()
            cfg.freeze()
        if cfg.SOLVER.EPOCHS:
            # Built before all else, for the number of its images, and only once.
            loader = self.build_train_loader(cfg)
            cfg = epochs_to_iterations(cfg, loader)
            self.build_train_loader = lambda cfg: loader  # type: ignore[method-assign]
        self._training_keys = training_keys(cfg)
        seed_all_rng(cfg.SEED)  # the initial weights
        super().__init__(cfg)
        self._training_keys |= teacher_digests(self.checkpointer.model)
        self._trainer = AccumulatingTrainer(
            *(self.model, self.data_loader, self.optimizer),
            num_parts=cfg.SOLVER.ACCUMULATION_STEPS,
            grad_scaler=getattr(self._trainer, "grad_scaler", None),  # type: ignore[has-type]
            max_iter=self.max_iter,
            read_before=(cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD),
        )

    def build_hooks(self) -> list:
        """DefaultTrainer's and ours, in the order in which they run."""
        # DefaultTrainer calls this when all else is built; the hooks take its checkpointer.
        self.checkpointer = SafeCheckpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        hooks = build_hooks(self.cfg, self)
        self._seed_hook = next(hook for hook in hooks if isinstance(hook, SeedEachStep))
        return hooks

    def build_writers(self) -> list[EventWriter]:
        return build_writers(self.cfg, self.max_iter)

    def evaluate(self, model: nn.Module) -> dict:
        """`test` with the trainer's config, kept as the last evaluation's results."""
        if self.iter == self.max_iter == self._evaluated:
            return self._last_eval_results  # training has ended early, by this evaluation
        self._last_eval_results: dict = self.test(self.cfg, model)
        self._evaluated = self.iter + 1
        return self._last_eval_results

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint of OUTPUT_DIR whole, or MODEL.WEIGHTS's weights alone.

        Of several processes all load the checkpoint that the first one sees.

        Raises:
            InputError: the weights cannot be read or do not fit the model, or the checkpoint is
                another optimizer's.
        """
        if not resume and comm.is_main_process():
            warn_of_earlier_run(self.cfg.OUTPUT_DIR)
        with taking_firsts_checkpoint(self.checkpointer) if resume else contextlib.nullcontext():
            # A run goes on with all of its weights; only a new one may start from a part.
            self.checkpointer.require_all = resume and self.checkpointer.has_checkpoint()
            super().resume_or_load(resume=resume)
        self.data_loader.seed = self._seed_hook.seed  # the checkpoint's, where there was one
        self.data_loader.start_iter = self.start_iter
        if resume and self.start_iter >= self.max_iter:
            logger.warning(
                "NOTHING IS TRAINED: %s has %d iterations, and SOLVER.MAX_ITER is %d: a larger one "
                "trains on",
                *(self.cfg.OUTPUT_DIR, self.start_iter, self.max_iter),
            )

    def train(self) -> Any:
        """As DefaultTrainer's; no other process may write to OUTPUT_DIR meanwhile.

        Its config.yaml is from now on this training's whole config.

        Raises:
            InputError: what the user can fix, as a full disk, too little memory, a loss that is
                not finite or a process of the loader that was killed; what was trained is kept
                where that is possible, and the message says from where `resume` goes on.
        """
        if not comm.is_main_process() or not self.cfg.OUTPUT_DIR:
            return super().train()
        with locked_output(self.cfg.OUTPUT_DIR, "training"):
            if self.start_iter < self.max_iter:
                write_config(self.cfg.OUTPUT_DIR, self._config)
            return super().train()

    def state_dict(self) -> dict:
        state = super().state_dict()
        # Detectron2's main branch has it; v0.6 loses the optimizer's state.
        state["_trainer"] = self._trainer.state_dict()
        state["batch_scale"] = self._batch_scale
        state["config"] = dict(self._training_keys)
        # A parameter that never had a gradient has none, so that only this tells of a missing one.
        state["optimizer_states"] = len(state["_trainer"]["optimizer"]["state"])
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from what state_dict gave.

        Raises:
            InputError: it is of another config, or damaged; the message names the checkpoint, and
                the newest one that can be gone on from.
        """
        try:
            self._check_state(state_dict)
            super().load_state_dict(state_dict)
            self._trainer.load_state_dict(state_dict["_trainer"])
            self._go_on_from(state_dict.get("config"))
        except Exception as e:  # a damaged state may raise anything
            if isinstance(e, (InputError, OSError)) or is_out_of_memory(e):
                raise
            path = self.checkpointer.get_checkpoint_file()
            other = self.checkpointer.another_whole(path, self._check_state)
            what = e if type(e) is ValueError else repr(e)
            fix = (
                f"move it to another folder, and `resume` goes on from {other}"
                if other
                else f"start anew in another OUTPUT_DIR, with MODEL.WEIGHTS {path}"
            )
            raise InputError(
                f"the training's state in the checkpoint {path} is not one of this trainer "
                f"({what}): {fix}"
            ) from e

    def _go_on_from(self, earlier: Mapping | None) -> None:
        """Tell what has changed since a checkpoint; None = an older one, which does not say it."""
        if earlier is None:
            return
        warn_of_changes(earlier, self._training_keys, self.cfg.OUTPUT_DIR)
        # The next checkpoint says of these what the optimizer has.
        kept = {name: earlier[name] for name in OF_OPTIMIZER & earlier.keys()}
        self._training_keys |= kept

    def _check_state(self, state_dict: Mapping) -> None:
        check_same_training(state_dict, self, self._batch_scale)
        check_state(state_dict, self)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        with checking_parts(cfg):
            model = finish_model(super().build_model(cfg), cfg)
        return attach_teachers(freeze_parts(model, complete_config(cfg).MODEL.FREEZE), cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict]]:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, inference_folder(cfg, dataset_name))

    @classmethod
    def _has_own_evaluators(cls) -> bool:
        """Whether build_evaluator is this class's, and not a subclass's."""
        # A subclass may have it as a class method, as here, or as a static one.
        own = vars(Trainer)["build_evaluator"].__func__
        return getattr(cls.build_evaluator, "__func__", cls.build_evaluator) is own

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | None = None,
    ) -> dict:
        """As DefaultTrainer's; then each dataset's folder gets charts of its segmentation.

        Raises:
            InputError: an evaluator is of another task than the model's.
        """
        if evaluators is None:
            with contextlib.suppress(NotImplementedError):  # which DefaultTrainer only warns of
                evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        if keeps_contract(model):
            model = adapt(model)  # which refuses NaN boxes, whatever evaluates them
        if evaluators is not None:
            check_needs(evaluators, model_tasks(cfg))
            needs = needs_of(evaluators)
            if keeps_contract(model) and needs <= {"label_map", "confidence", "boxes"}:
                model = LabelMapModel(model, confidence="confidence" in needs)
        results = super().test(cfg, model, evaluators)
        draw_evaluation_charts([inference_folder(cfg, name) for name in cfg.DATASETS.TEST])
        return results

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """evaluate_with_tta, and charts as in test."""
        results = evaluate_with_tta(cfg, model)
        draw_evaluation_charts([tta_folder(cfg, name) for name in cfg.DATASETS.TEST])
        return results
