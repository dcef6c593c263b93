"""Variables of .mat files, whole and damaged."""

import random
import zlib

import numpy as np
import pytest

from topformer_d2.data.prepare import mat_file
from topformer_d2.data.prepare.mat_file import read_mat

scipy_io = pytest.importorskip("scipy.io")


def _mat(path, compress=False, **variables) -> bytes:
    scipy_io.savemat(path, variables, do_compression=compress)
    return path.read_bytes()


@pytest.mark.parametrize("compress", [False, True])
def test_variables_are_those_that_scipy_reads(tmp_path, compress):
    numbers = np.random.default_rng(0)
    written = {
        f"v_{dtype}_{rows}": numbers.integers(0, 99, (rows, 7)).astype(dtype)
        for dtype in ("uint8", "int16", "float32", "float64")
        for rows in (0, 1, 5)
    }
    others = {"text": "some", "cell": np.array([["a", 1]], object), "complex": np.eye(2) * 1j}
    read = read_mat(_mat(tmp_path / "a.mat", compress, **written, **others))
    assert read.keys() == written.keys() | others.keys()
    for name, values in written.items():
        assert np.array_equal(read[name].values, values) and read[name].shape == values.shape
    assert all(read[name].values is None for name in others)
    assert read["cell"].shape == (1, 2)


@pytest.mark.parametrize("compress", [False, True])
def test_damage_is_one_error(tmp_path, compress):
    names = np.array(["a", "b"], object)
    content = _mat(tmp_path / "a.mat", S=np.arange(12.0).reshape(3, 4), names=names)
    choose = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(content)
        for _ in range(choose.choice([1, 3])):
            place = choose.randrange(128, len(damaged) - 4) // 4 * 4
            damaged[place : place + 4] = choose.choice(
                [bytes(4), b"\xff" * 4, choose.randbytes(4), bytes([choose.randrange(20), 0, 0, 0])]
            )
        damaged = damaged[: choose.choice([len(damaged), choose.randrange(len(damaged))])]
        if compress and len(damaged) > 128:
            inner = zlib.compress(damaged[128:])
            size = len(inner).to_bytes(4, "little")
            damaged = damaged[:128] + b"\x0f\0\0\0" + size + inner
        try:
            read_mat(bytes(damaged))
        except ValueError as e:
            assert str(e)


def test_a_compressed_variable_has_a_limit(tmp_path, monkeypatch):
    content = _mat(tmp_path / "a.mat", True, a=np.zeros((100, 100)), b=np.zeros((100, 100)))
    monkeypatch.setattr(mat_file, "_MAX_BYTES", 100_000)
    with pytest.raises(ValueError, match="more than 100000 bytes"):
        read_mat(content)
