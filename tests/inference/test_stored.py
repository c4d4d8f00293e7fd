"""A stored tensor lands, to the digit, where it belongs; what is not the same tensor is told."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from opd_diag.errors import CheckpointError
from opd_diag.inference.stored import Copied, fits, looks_like, read_into
from opd_diag.runs import contents
from opd_diag.runs.contents import StoredTensor, read_content

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]


def stored(folder, tensor):
    """The file of one tensor, and where it lies in it."""
    save_file({"before": torch.zeros(3), "x": tensor}, folder / "x.safetensors")
    return folder / "x.safetensors", read_content(folder / "x.safetensors").tensors["x"]


def values(*shape, dtype=torch.float32):
    return (100 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)


@pytest.mark.parametrize("piece", [8, 64, 2**22])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_read_as_it_was_written(tmp_path, dtype, piece, monkeypatch):
    monkeypatch.setattr(contents, "PIECE", piece)
    tensor = values(13, 7, dtype=dtype)
    file, where = stored(tmp_path, tensor)
    place = torch.zeros_like(tensor)
    assert fits(place, where)
    with file.open("rb") as handle:
        read_into(place, handle, where)
        assert looks_like(place, handle, where)
    assert torch.equal(place, tensor)


@pytest.mark.parametrize("into", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_converted_as_torch_converts(tmp_path, into):
    tensor = values(5, 9)
    file, where = stored(tmp_path, tensor)
    place = torch.zeros(5, 9, dtype=into)
    with file.open("rb") as handle:
        read_into(place, handle, where)
        assert looks_like(place, handle, where)
    assert torch.equal(place, tensor.to(into))


def test_what_fits(tmp_path):
    _, where = stored(tmp_path, values(4, 6))
    assert fits(torch.zeros(4, 6, dtype=torch.bfloat16), where)
    assert not fits(torch.zeros(6, 4), where)
    assert not fits(torch.zeros(24), where)
    assert not fits(torch.zeros(6, 4).T, where)
    assert not fits(torch.zeros(4, 6), StoredTensor("F8_E4M3", (4, 6), 0, 24))
    assert not fits(torch.zeros(4, 6), StoredTensor("F32", (4, 6), 0, 95))


def test_one_tensor_without_an_entry(tmp_path):
    tensor = torch.zeros(0, 4)
    file, where = stored(tmp_path, tensor)
    with file.open("rb") as handle:
        read_into(torch.zeros(0, 4), handle, where)
        assert looks_like(torch.zeros(0, 4), handle, where)


@pytest.mark.parametrize("shape", [(6, 6), (600, 600)])
@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.T.contiguous(),
        lambda t: t.view(2, 3, -1, t.shape[1]).transpose(0, 1).reshape(t.shape),  # heads in another order
        lambda t: t * 1.001,
        lambda t: t + (torch.arange(t.numel()).view(t.shape) == t.numel() - 1),
        lambda t: t.nan_to_num() * float("nan"),
    ],
    ids=["transposed", "permuted", "scaled", "last one", "NaN"],
)
def test_another_tensor_does_not_look_like_it(tmp_path, shape, change):
    tensor = values(*shape)
    file, where = stored(tmp_path, tensor)
    with file.open("rb") as handle:
        assert looks_like(tensor, handle, where)
        assert not looks_like(change(tensor), handle, where)


@pytest.mark.parametrize("of", [read_into, looks_like])
def test_a_file_that_was_cut_is_refused_and_kills_nobody(tmp_path, of):
    file, where = stored(tmp_path, values(600, 600))
    with file.open("rb") as handle:
        os.truncate(file, 1000)
        with pytest.raises(CheckpointError, match=r"changed while it was read: it ends .*early"):
            of(torch.zeros(600, 600), handle, where)


def test_counting():
    copied = Copied()
    copied.add(12)
    copied.add(30)
    assert (copied.tensors, copied.bytes) == (2, 42)
