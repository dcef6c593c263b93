"""A training loader of a program's own, with Detectron2's default seed."""

from topformer_d2.data import build_train_loader


def test_a_seed_is_drawn_where_the_config_has_none(tiny_config, monkeypatch):
    monkeypatch.setattr("topformer_d2.data.loader.comm.shared_random_seed", lambda: 11)
    drawn = build_train_loader(tiny_config("SEED", "-1"))
    given = build_train_loader(tiny_config("SEED", "11"))
    assert drawn.seed == given.seed == 11
    files = [[s["file_name"] for s in next(iter(loader))] for loader in (drawn, given)]
    assert files[0] == files[1] and len(files[0]) == 4
