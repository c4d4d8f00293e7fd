"""No code of a file runs unless the user allows it, and damage is a sentence."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from opd_diag.errors import RolloutsError
from opd_diag.runs.recorded.pickles import PICKLE_REFUSED, load_pickle, load_pt, tensor_values


class Touching:
    """A file with this in it makes another file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_malicious_pt_is_refused_before_anything_runs(tmp_path, legacy):
    path, touched = tmp_path / "7.pt", tmp_path / "touched"
    torch.save({"samples": [Touching(touched)]}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RolloutsError) as caught:
        load_pt(path, allow_pickle=False)
    assert not touched.exists()
    if not legacy:
        assert caught.value.code == PICKLE_REFUSED
        load_pt(path, allow_pickle=True)
        assert touched.exists()


def test_an_old_torch_reads_no_pt_unless_it_is_allowed(tmp_path, monkeypatch):
    """As of weights, whose reader it is: not even a file of plain values."""
    path = tmp_path / "7.pt"
    torch.save({"samples": [1]}, path)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(RolloutsError) as caught:
        load_pt(path, allow_pickle=False)
    assert caught.value.code == PICKLE_REFUSED
    assert str(caught.value) == (
        f"{path} is a pickle, and torch 2.9.1+cpu reads pickles unsafely (CVE-2026-24747, mended in 2.10): whoever "
        "wrote the file could run code here. Update torch, or pass --allow-pickle if the run is yours."
    )
    assert load_pt(path, allow_pickle=True) == {"samples": [1]}


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("kept", [0, 40, -1])
def test_a_pt_that_is_not_whole_is_refused(tmp_path, allow_pickle, kept):
    path = tmp_path / "7.pt"
    torch.save({"samples": []}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RolloutsError) as caught:
        load_pt(path, allow_pickle=allow_pickle)
    assert caught.value.code is None
    assert str(caught.value) == (
        f"{path} cannot be loaded (torch.save wrote no such file). If the trainer is writing it, run the command again "
        "later; else leave the file out."
    )


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    path = tmp_path / "7.pt"
    path.touch()

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    for load in (lambda: load_pt(path, allow_pickle=True), lambda: load_pickle(path, {}, allow_pickle=True)):
        with pytest.raises(RolloutsError) as caught:
            load()
        assert str(caught.value) == f"{path} cannot be read: Permission denied. Check it and its permissions."


def test_stand_ins_are_taken_for_classes_of_their_package_alone(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([Path("a"), np.float64(0.5)]))
    assert load_pickle(path, {"pathlib": {"PosixPath": list}}, allow_pickle=True) == [["a"], 0.5]


@pytest.mark.parametrize(
    "value", [torch.tensor([[1, 2]]), np.array([[1, 2]]), [[1, 2]]], ids=["tensor", "array", "list"]
)
def test_values_of_tensors(value):
    assert tensor_values(value) == [[1, 2]]


def test_values_of_a_tensor_that_numpy_does_not_know(tmp_path):
    torch.save(torch.tensor([0.5, 1.5], dtype=torch.bfloat16), tmp_path / "tensor")
    assert tensor_values({"format": "torch", "data": (tmp_path / "tensor").read_bytes()}) == [0.5, 1.5]
