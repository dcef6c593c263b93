"""What is said of a config whose datasets do not fit, before anything runs."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from topformer_d2 import get_config
from topformer_d2.data import check_config, dataset_paths
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
    assert "python datasets/prepare_ade20k.py --source" in str(error.value)


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
        assert metadata.prepare_command.startswith("python datasets/prepare_")
        assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
