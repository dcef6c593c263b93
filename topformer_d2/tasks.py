"""What a task is: pixels (semantic segmentation), boxes (detection) or whole images (their class).

Everything that differs between them by name alone stands here: keys of records and metadata,
nodes of the config, groups of metrics, parts of a checkpoint. A task's own name is Detectron2's
word for its labels in a training sample and for its answer in a model's output.
"""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.modeling import SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector


@dataclass(frozen=True)
class Task:
    """A task of a model: its names in records, configs, outputs and metrics.

    Attributes:
        name: "sem_seg", "instances" or "cls".
        labels: its labels, in words.
        record_key: of a dataset's record that is labelled for it.
        classes_field: of a dataset's metadata, with the names of its classes.
        classes: its classes, in words.
        evaluator_types: of a dataset that has labels for it alone.
        config_node: below MODEL, of the head; NUM_CLASSES is in it.
        classes_key: below DATASETS, of the class names.
        table: of its classes in the description of an exported file.
        metrics: group of its metrics in an evaluation's results.
        main_metric: of that group, by which models are compared.
        architecture: Detectron2's base class of the models that do it alone; None = it has none.
        topformer_prefix: of TopFormer's keys in the checkpoint of a model that does it alone.
        parts: of such a checkpoint, beside TopFormer.
    """

    name: str
    labels: str
    record_key: str
    classes_field: str
    classes: str
    evaluator_types: tuple[str, ...]
    config_node: str
    classes_key: str
    table: str
    metrics: str
    main_metric: str
    architecture: type | None
    topformer_prefix: str
    parts: tuple[str, ...]

    @property
    def num_classes_key(self) -> str:
        """The config key of its number of classes."""
        return f"MODEL.{self.config_node}.NUM_CLASSES"


PIXELS = Task(
    name="sem_seg",
    labels="pixel labels",
    record_key="sem_seg_file_name",
    classes_field="stuff_classes",
    classes="segmentation classes",
    evaluator_types=("sem_seg", "cityscapes_sem_seg"),
    config_node="SEM_SEG_HEAD",
    classes_key="STUFF_CLASSES",
    table="pixels",
    metrics="sem_seg",
    main_metric="mIoU",
    architecture=SemanticSegmentor,
    topformer_prefix="backbone.",
    parts=("sem_seg_head",),
)
BOXES = Task(
    name="instances",
    labels="boxes",
    record_key="annotations",
    classes_field="thing_classes",
    classes="classes of objects",
    evaluator_types=("coco",),
    config_node="RETINANET",
    classes_key="THING_CLASSES",
    table="objects",
    metrics="bbox",
    main_metric="AP",
    architecture=DenseDetector,
    topformer_prefix="backbone.bottom_up.",
    parts=("pyramid", "head"),
)

# Of whole images, for pretraining alone.
IMAGES = Task(
    name="cls",
    labels="a class for each image",
    record_key="class_id",
    classes_field="image_classes",
    classes="classes of images",
    evaluator_types=("cls",),
    config_node="CLS_HEAD",
    classes_key="IMAGE_CLASSES",
    table="images",
    metrics="cls",
    main_metric="top1",
    architecture=None,
    topformer_prefix="backbone.",
    parts=("cls_head",),
)

# The tasks of dense prediction by name, in the order in which a model of both gives its answers.
# These are what is predicted, exported, and joined in one model.
TASKS = {task.name: task for task in (PIXELS, BOXES)}
# What models are trained for and evaluated on.
ALL_TASKS = {**TASKS, IMAGES.name: IMAGES}
