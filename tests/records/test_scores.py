"""Scores survive the disk bit for bit, and a file that is not whole or not ours is refused."""

import dataclasses
import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from opd_diag.errors import StoreError
from opd_diag.records.arrays import METADATA_KEY
from opd_diag.records.scores import SCORES_VERSION, TENSOR_FIELDS, Scores

GRID = (1, 2, 4)
K = 5
PER_KEPT = [name for name in TENSOR_FIELDS if "topk" in name]
PER_POINT = [name for name in TENSOR_FIELDS if name.startswith("curve_")]
WHOLE = {
    "rollout": np.int32,
    "position": np.int32,
    "terminal": np.bool_,
    "sampled_ids": np.int32,
    "student_topk_ids": np.int32,
    "teacher_topk_ids": np.int32,
    "curve_shared": np.int16,
}


def random_scores(n: int, seed: int = 0) -> Scores:
    random = np.random.default_rng(seed)
    tensors = {}
    for name in TENSOR_FIELDS:
        shape = (n, K) if name in PER_KEPT else (n, len(GRID)) if name in PER_POINT else (n,)
        values = random.standard_normal(shape) if name not in WHOLE else random.integers(0, 2, shape)
        tensors[name] = values.astype(WHOLE.get(name, np.float32))
    tensors["position"] = np.arange(n, dtype=np.int32)
    return Scores(**tensors, grid=GRID, provenance={"student": "step 20", "versions": {"torch": "2"}})


def assert_same(found: Scores, expected: Scores) -> None:
    for name in TENSOR_FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name, strict=True)
    assert (found.grid, found.provenance) == (expected.grid, expected.provenance)


@pytest.fixture
def saved(tmp_path):
    file = tmp_path / "scores" / "a.safetensors"
    random_scores(7).save(file)
    return file


def refusal(file) -> str:
    with pytest.raises(StoreError) as caught:
        Scores.load(file)
    return str(caught.value)


def test_the_fields_that_every_file_has_as_tensors_are_all_but_five():
    others = {f.name for f in dataclasses.fields(Scores)} - set(TENSOR_FIELDS)
    assert others == {"grid", "provenance", "bounds", "drawn", "bound_ks"}
    assert (len(PER_KEPT), len(PER_POINT)) == (6, 5)


def test_round_trip(saved):
    loaded = Scores.load(saved)
    assert_same(loaded, random_scores(7))
    assert (len(loaded), loaded.k_kept) == (7, K)
    assert os.listdir(saved.parent) == ["a.safetensors"]


def test_what_is_known_of_drawn_tokens_comes_back(tmp_path):
    drawn = {"ids": np.arange(7, dtype=np.int32), "teacher_logprobs": np.full(7, -np.inf, dtype=np.float32)}
    dataclasses.replace(random_scores(7), drawn=drawn).save(tmp_path / "a.safetensors")
    loaded = Scores.load(tmp_path / "a.safetensors")
    assert_same(loaded, random_scores(7))
    assert loaded.drawn.keys() == drawn.keys()
    for name, values in drawn.items():
        np.testing.assert_array_equal(loaded.drawn[name], values, strict=True)


def test_round_trip_of_nan_infinities_and_arrays_that_are_views(tmp_path):
    scores = random_scores(8)
    scores.student_sampled_logprobs[:3] = np.nan, -np.inf, -0.0
    views = {name: getattr(scores, name)[::2] for name in TENSOR_FIELDS}
    every_other = Scores(**views, grid=GRID, provenance={})
    every_other.save(tmp_path / "a.safetensors")
    loaded = Scores.load(tmp_path / "a.safetensors")
    assert_same(loaded, every_other)
    assert np.isnan(loaded.student_sampled_logprobs[0])


def test_no_states_at_all(tmp_path):
    random_scores(0).save(tmp_path / "a.safetensors")
    assert len(Scores.load(tmp_path / "a.safetensors")) == 0


def about(version):
    return {METADATA_KEY: json.dumps({"scores_version": version, "grid": [1], "provenance": {}})}


@pytest.mark.parametrize("version", [None, 0, SCORES_VERSION + 1])
def test_another_version(saved, version):
    tensors = {name: getattr(random_scores(7), name) for name in TENSOR_FIELDS}
    save_file(tensors, saved, metadata=None if version is None else about(version))
    assert refusal(saved) == (
        f"{saved} has scores version {version}, this opd-diag reads {SCORES_VERSION}. "
        "Delete the file and run report again."
    )


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_cut_file(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    message = refusal(saved)
    assert message.startswith(f"{saved} is no readable file of arrays: ")
    assert message.endswith(". Delete it and run report again.")


def test_a_missing_file_and_a_missing_tensor(saved, tmp_path):
    assert "is no readable file of arrays: " in refusal(tmp_path / "gone.safetensors")
    tensors = {name: getattr(random_scores(7), name) for name in TENSOR_FIELDS if name != "reverse_kl"}
    save_file(tensors, saved, metadata=about(SCORES_VERSION))
    assert "is no readable scores file: " in refusal(saved)
    assert "reverse_kl" in refusal(saved)


def test_equal_scores_are_equal_files(tmp_path):
    for name in ("a", "b"):
        random_scores(7).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(StoreError, match=r"No space left on device\. Free some space and run"):
            random_scores(9).save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["a.safetensors"]
