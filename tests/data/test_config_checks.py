"""What is said of a config whose datasets do not fit, before anything runs."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from topformer_d2 import get_config
from topformer_d2.data import check_config, dataset_paths
from topformer_d2.data.boxes import register_boxes
from topformer_d2.data.builtin import register_sem_seg
from topformer_d2.data.categories import load_categories
from topformer_d2.errors import InputError


def test_a_fitting_config_passes(tiny_config):
    check_config(tiny_config(), train=True)


def test_missing_dataset_names_path_and_command():
    with pytest.raises(InputError) as error:
        check_config(get_config("seg_topformer_b"), train=True)
    assert "'ade20k_sem_seg_train'" in str(error.value)
    assert dataset_paths("ade20k_sem_seg_train")[0] in str(error.value)
    assert "topformer data prepare ade20k --source" in str(error.value)


def test_empty_folders_are_no_dataset(tiny_config, tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    register_sem_seg(
        "empty", str(tmp_path / "images"), str(tmp_path / "labels"), load_categories("camvid")
    )
    with pytest.raises(InputError, match=r"'empty'.*images is missing or empty"):
        check_config(tiny_config("DATASETS.TRAIN", "('empty',)"), train=True)
    DatasetCatalog.remove("empty")


def test_class_count_that_differs(tiny_config):
    with pytest.raises(InputError, match=r"NUM_CLASSES is 9.*synthetic_sem_seg_train.*6 classes"):
        check_config(tiny_config("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "9"), train=True)


def test_ignored_label_that_differs(tiny_config):
    with pytest.raises(InputError, match=r"IGNORE_VALUE is 0.*255"):
        check_config(tiny_config("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "0"), train=True)


def test_detection_classes(tiny_detector):
    check_config(tiny_detector(), train=True)
    with pytest.raises(InputError, match=r"MODEL\.RETINANET\.NUM_CLASSES is 9.*5 classes: set"):
        check_config(tiny_detector("MODEL.RETINANET.NUM_CLASSES", "9"), train=True)
    with pytest.raises(InputError, match=r"'synthetic_sem_seg_train' has no classes of objects"):
        check_config(tiny_detector("DATASETS.TRAIN", "('synthetic_sem_seg_train',)"), train=True)


def test_detection_files_that_number_their_classes_differently(tiny_detector, tmp_path):
    for split, names in (("train", "abc"), ("val", "acb")):
        content = {
            "images": [{"id": 1, "file_name": "1.png", "width": 9, "height": 9}],
            "annotations": [],
            "categories": [{"id": 7 * i, "name": name} for i, name in enumerate(names, start=1)],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        register_boxes(f"abc_{split}", str(tmp_path / f"{split}.json"), str(tmp_path))
    cfg = tiny_detector("MODEL.RETINANET.NUM_CLASSES", "3", "DATASETS.TRAIN", "('abc_train',)")
    cfg.DATASETS.TEST = ("abc_val",)
    with pytest.raises(InputError, match=r"'abc_val' has the classes \['a', 'c', 'b'\]"):
        check_config(cfg, train=True)
    cfg.DATASETS.TEST = ("abc_train",)
    check_config(cfg, train=True)
    for split in ("train", "val"):
        DatasetCatalog.remove(f"abc_{split}")
        MetadataCatalog.remove(f"abc_{split}")


def test_models_that_are_not_trained_here(tiny_config):
    for name, message in (("GeneralizedRCNN", "neither a Sem"), ("RetinaNat", "'RetinaNet'")):
        with pytest.raises(InputError, match=message):
            check_config(tiny_config("MODEL.META_ARCHITECTURE", name), train=True)


def test_unregistered_dataset(tiny_config):
    with pytest.raises(InputError, match=r"'synthetic_sem_seg_trian'.*synthetic_sem_seg_train"):
        check_config(tiny_config("DATASETS.TRAIN", "('synthetic_sem_seg_trian',)"), train=True)
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN is empty"):
        check_config(tiny_config("DATASETS.TRAIN", "()"), train=True)
    with pytest.raises(InputError, match=r"DATASETS\.TEST is empty"):
        check_config(tiny_config("DATASETS.TEST", "()"), train=False)
    check_config(tiny_config("DATASETS.TEST", "()"), train=True)


@pytest.mark.parametrize(("name", "count"), [("ade20k", 150), ("camvid", 11)])
def test_categories(name, count):
    categories = load_categories(name)
    assert len(categories.names) == len(categories.colors) == count
    table = categories.lookup_table()
    assert sorted(set(table.tolist())) == [*range(count), 255]
    assert all(table[s] == t for t, s in enumerate(categories.source_ids))


def test_metadata_has_colours_and_a_command():
    for name in ("ade20k_sem_seg_val", "camvid_sem_seg_val", "synthetic_sem_seg_val"):
        metadata = MetadataCatalog.get(name)
        assert len(metadata.stuff_colors) == len(metadata.stuff_classes)
        assert metadata.prepare_command.startswith("topformer data prepare ")
        assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
