"""MODEL.TEACHER: a run with a teacher, its exact resuming, its checkpoints, and what is refused."""

import math
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.engine.test_resume import run
from topformer_d2.checkpoint import SafeCheckpointer, save_state_dict
from topformer_d2.config import load_config
from topformer_d2.engine import Trainer, setup_run
from topformer_d2.engine.teachers import attach_teachers, check_teachers
from topformer_d2.errors import InputError
from topformer_d2.modeling import build_model

PIXELS, BOXES = "MODEL.TEACHER.PIXELS.", "MODEL.TEACHER.BOXES."


def saved(cfg, folder, seed=7):
    """A teacher as a run leaves it: its config and weights, as values of CONFIG and WEIGHTS."""
    torch.manual_seed(seed)
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    weights = str(folder / "model_final.pth")
    model = build_model(cfg)
    if hasattr(model, "head"):  # which then finds something everywhere
        torch.nn.init.zeros_(model.head.cls_score.bias)
    save_state_dict(model.state_dict(), weights)
    return str(folder / "config.yaml"), weights


def teacher_keys(node, files):
    return [node + "CONFIG", files[0], node + "WEIGHTS", files[1]]


def test_a_run_with_a_teacher_resumes_exactly(tiny_config, tmp_path, caplog):
    files = saved(tiny_config("MODEL.TOPFORMER.VARIANT", "small"), tmp_path / "teacher")
    opts = [
        *teacher_keys(PIXELS, files),
        *(PIXELS + "FEATURES_WEIGHT", "1.0", "SOLVER.EMA_DECAY", "0.9"),
        *("MODEL.TOPFORMER.DROP_PATH_RATE", "0.3", "SOLVER.MAX_ITER", "3"),
        *("DATASETS.TEST", "()", "OUTPUT_DIR"),
    ]
    losses, weights = run(tiny_config(*opts, str(tmp_path / "whole")))
    cut = tiny_config(*opts, str(tmp_path / "cut"))
    first, _ = run(cut, stop_after=1)
    assert "the weights of MODEL.TEACHER" not in caplog.text
    rest, resumed = run(cut, resume=True)
    assert "goes on with another config" not in caplog.text
    assert first | rest == losses and all(math.isfinite(loss) for loss in losses.values())
    assert all(torch.equal(weights[key], resumed[key]) for key in weights)
    of_teacher = [key for key in weights if "distillation" in key]
    # The features alone, whose widths are 128 and 192.
    assert len(of_teacher) == 2 * 3 and all(".adapters.sim" in key for key in of_teacher)

    # Inference needs no teacher, and reads what was trained with one.
    model = build_model(cut)
    SafeCheckpointer(model, require_all=True).load(str(tmp_path / "whole" / "model_final.pth"))
    assert not hasattr(model, "distillation") and "distillation" not in caplog.text

    save_state_dict(model.state_dict(), files[1])  # of another variant
    with pytest.raises(InputError, match=r"TEACHER\.PIXELS\.WEIGHTS .*MODEL.TOPFORMER.VARIANT"):
        Trainer(cut)
    saved(tiny_config("MODEL.TOPFORMER.VARIANT", "small"), tmp_path / "other", seed=8)
    (tmp_path / "other" / "model_final.pth").replace(files[1])
    run(cut, resume=True)
    assert "the weights of MODEL.TEACHER.PIXELS (SHA-256)" in caplog.text


@pytest.mark.parametrize("kind", ["lite_", ""], ids=["LiteRetinaNet", "RetinaNet"])
def test_a_detector_learns_from_one_of_another_width(tiny_detector, tmp_path, kind):
    other = tiny_detector("MODEL.TOPFORMER.SIM_CHANNELS", "48")
    opts = [*teacher_keys(BOXES, saved(other, tmp_path / "teacher")), "DATASETS.TEST", "()"]
    opts += [BOXES + "FEATURES_WEIGHT", "1.0", "SOLVER.MAX_ITER", "1"]
    cfg = tiny_detector(*opts, kind=kind)
    trainer = Trainer(cfg)
    trainer.train()
    found = {name: history.latest() for name, history in trainer.storage.histories().items()}
    assert all(found[f"loss_distill_{name}"] > 0 for name in ("scores", "boxes", "levels"))
    assert len(trainer.model.distillation.lessons["instances"].adapters) == 5


CLASSES = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "7"]
OTHER_TASK = r"BOXES\.CONFIG .*boxes.*'TopFormerSegmentor' does not learn"


@pytest.mark.parametrize(
    ("node", "teacher", "student", "message"),
    [
        (PIXELS, ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", *CLASSES], [], r"7 .* 6 .*NUM_CL"),
        (BOXES, [], [], OTHER_TASK),
        (PIXELS, [], [PIXELS + "WEIGHTS", ""], r"PIXELS\.CONFIG .*no weights.*WEIGHTS"),
        (PIXELS, [], [PIXELS + "CONFIG", "seg_topformr_t"], r"no config 'seg_topformr_t'"),
        (PIXELS, [], [PIXELS + "WEIGHTS", "no.pth"], r"PIXELS\.WEIGHTS: .*no\.pth does not exist"),
        (PIXELS, [], [PIXELS + "LOGITS_WEIGHT", "0.0"], r"teaches nothing.*FEATURES_WEIGHT"),
        (
            *(PIXELS, [], ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"]),
            r"PIXELS\.CONFIG .*'SemanticSegmentor'.*use TopFormerSegmentor",
        ),
        (
            PIXELS,
            ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "['sim3']"],
            [
                *(PIXELS + "FEATURES_WEIGHT", "1.0"),
                *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['sim4', 'sim5']"),
            ],
            r"FEATURES_WEIGHT is 1\.0, .*strides \[8\].*\[16, 32\]",
        ),
    ],
    ids=["number", "task", "weights", "name", "file", "off", "architecture", "features"],
)
def test_what_does_not_fit_is_named(tiny_config, tmp_path, node, teacher, student, message):
    files = saved(tiny_config(*teacher), tmp_path / "teacher")
    cfg = tiny_config(*teacher_keys(node, files), *student)
    with pytest.raises(InputError, match=message):
        attach_teachers(build_model(cfg), cfg)


@pytest.mark.parametrize("key", ["CONFIG", "WEIGHTS"])
def test_a_run_does_not_overwrite_its_teacher(tiny_config, tmp_path, key):
    output = tmp_path / "output"
    files = dict(zip(("CONFIG", "WEIGHTS"), saved(tiny_config(), output), strict=True))
    (tmp_path / "kept").mkdir()
    for other in files.keys() - {key}:
        files[other] = shutil.copy(files[other], tmp_path / "kept")
    before = {path: path.read_bytes() for path in output.iterdir()}
    cfg = tiny_config(*teacher_keys(PIXELS, list(files.values())))
    for start in (setup_run, Trainer):
        with pytest.raises(InputError, match=rf"PIXELS\.{key} .* is in OUTPUT_DIR"):
            start(cfg)
    # Where nothing is written, as by `topformer benchmark train`, it may be there.
    assert attach_teachers(build_model(cfg), cfg).distillation
    assert before == {path: path.read_bytes() for path in output.iterdir()}


def test_other_class_names_and_a_teacher_without_the_task_are_named(
    tiny_config, tiny_detector, tmp_path
):
    cfg = tiny_config()
    names = list(cfg.DATASETS.STUFF_CLASSES)
    cfg.DATASETS.STUFF_CLASSES = [names[1], names[0], *names[2:]]
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    student = tiny_config(*teacher_keys(PIXELS, saved(cfg, tmp_path / "pixels")))
    with pytest.raises(InputError, match=rf"CONFIG .*{names[1]!r} there and {names[0]!r} here"):
        attach_teachers(build_model(student), student)
    student = tiny_config(*teacher_keys(PIXELS, saved(tiny_detector(), tmp_path / "boxes")))
    with pytest.raises(InputError, match=r"does not learn pixel labels: .*'LiteRetinaNet'"):
        attach_teachers(build_model(student), student)


def test_a_dataset_of_the_students_config_stays_its_own(tiny_config, tmp_path):
    """Both configs name their training data the same, and mean other folders."""
    root = os.path.join(os.environ["DETECTRON2_DATASETS"], "synthetic")
    (tmp_path / "classes.txt").write_text("\n".join(tiny_config().DATASETS.STUFF_CLASSES))

    def config(split, *opts):
        entry = {
            "IMAGES": f"{root}/images/{split}",
            "LABELS": f"{root}/annotations_detectron2/{split}",
            "CLASSES": str(tmp_path / "classes.txt"),
        }
        written = tmp_path / f"{split}.yaml"
        base = tiny_config("DATASETS.TRAIN", "('own_teachers',)", "DATASETS.TEST", "()", *opts)
        base.DATASETS.FOLDERS = CfgNode({"own_teachers": entry})
        written.write_text(base.dump())
        return load_config(str(written))

    files = saved(config("val"), tmp_path / "teacher")
    cfg = config("train", *teacher_keys(PIXELS, files))
    try:
        attach_teachers(build_model(cfg), cfg)
        assert MetadataCatalog.get("own_teachers").folders["IMAGES"] == f"{root}/images/train"
        assert len(DatasetCatalog.get("own_teachers")) == 12
    finally:
        DatasetCatalog.remove("own_teachers")
        MetadataCatalog.remove("own_teachers")


@pytest.mark.parametrize(
    ("opts", "named"),
    [
        (["MODEL.ANCHOR_GENERATOR.OFFSET", "0.25"], r"OFFSET is 0\.25 there"),
        (["MODEL.RETINANET.BBOX_REG_WEIGHTS", "(2.0, 2.0, 1.0, 1.0)"], "BBOX_REG_WEIGHTS"),
        (["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0]]"], "number of anchors"),
    ],
    ids=["offset", "weights", "ratios"],
)
def test_other_anchors_are_named(tiny_detector, tmp_path, opts, named):
    files = saved(tiny_detector(*opts), tmp_path / "teacher")
    cfg = tiny_detector(*teacher_keys(BOXES, files))
    with pytest.raises(InputError, match=rf"BOXES\.CONFIG .*other anchors .*{named}"):
        attach_teachers(build_model(cfg), cfg)


IMAGES = "MODEL.TEACHER.IMAGES."
OF_TIMM = ["MODEL.META_ARCHITECTURE", "TimmClassifier", "MODEL.BASELINE.NAME", "test_resnet"]


@pytest.mark.parametrize("kind", ["timm", "own"])
def test_a_classifier_learns_from_one_of_the_same_mixed_images(tiny_classifier, tmp_path, kind):
    pytest.importorskip("timm")
    other = OF_TIMM if kind == "timm" else ["MODEL.TOPFORMER.VARIANT", "small"]
    files = saved(tiny_classifier(*other), tmp_path / "teacher")
    opts = [*teacher_keys(IMAGES, files), IMAGES + "TEMPERATURE", "3.0", "DATASETS.TEST", "()"]
    mixing = ["INPUT.CLS.CUTMIX_ALPHA", "1.0", "MODEL.TOPFORMER.DROP_PATH_RATE", "0.0"]
    trainer = Trainer(tiny_classifier(*opts, *mixing, "SOLVER.MAX_ITER", "1"))
    teacher = trainer.model.distillation.lessons["cls"].teacher.model
    seen = {}
    for name, model in (("own", trainer.model), ("theirs", teacher)):
        network = model.network

        def keeping(images, network=network, model=model, name=name):
            seen[name] = images * model.pixel_std + model.pixel_mean, network(images).logits
            return network(images)

        model.network = keeping
    trainer.train()
    torch.testing.assert_close(seen["own"][0], seen["theirs"][0], rtol=0, atol=1e-3)
    own, theirs = (seen[name][1].detach() / 3 for name in ("own", "theirs"))
    divergence = (theirs.softmax(1) * (theirs.log_softmax(1) - own.log_softmax(1))).sum(1).mean()
    found = trainer.storage.history("loss_distill_cls").latest()
    assert found == pytest.approx(9 * divergence.item(), rel=1e-4) and found > 0


def test_a_classifiers_teacher_has_the_same_classes_in_the_same_order(tiny_classifier, tmp_path):
    files = saved(tiny_classifier(), tmp_path / "teacher")
    check_teachers(tiny_classifier(*teacher_keys(IMAGES, files)))
    config = Path(files[0])
    turned = r"\1\2\n\1CLASSES: [dog, cat]"
    config.write_text(re.sub(r"( +)(CLASS_FOLDERS: .*)", turned, config.read_text()))
    with pytest.raises(InputError, match=r"IMAGE_CLASSES.* 'dog' there and 'cat' here"):
        check_teachers(tiny_classifier(*teacher_keys(IMAGES, files)))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ([*OF_TIMM[:3], "test_resnt"], r"IMAGES\.CONFIG .*'test_resnt'.*test_resnet"),
        (OF_TIMM, r"IMAGES\.CONFIG .*no weights.*WEIGHTS"),
    ],
    ids=["name", "weights"],
)
def test_a_timm_teacher_that_is_not_trained_is_named(tiny_classifier, tmp_path, teacher, message):
    pytest.importorskip("timm")
    file = tmp_path / "teacher.yaml"
    file.write_text(tiny_classifier(*teacher).dump())
    cfg = tiny_classifier(IMAGES + "CONFIG", str(file))
    with pytest.raises(InputError, match=message):
        attach_teachers(build_model(cfg), cfg)
