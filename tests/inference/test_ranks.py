"""What ranks saved apart is, to the bit, the model that was sharded; what does not fit together is one sentence."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from sharded_runs import RANK_FORMS, copy, original
from torch import Tensor

from opd_diag.errors import CheckpointError
from opd_diag.inference import ranks
from opd_diag.inference.ranks import RankFiles

from .test_pickles import Bomb, rewrite


def files(folder):
    return sorted(folder.glob("model_world_size_*.pt"))


def merged(folder, dtype=torch.float32, expected=None) -> dict[str, Tensor]:
    source = RankFiles(files(folder))
    return source.read(dict.fromkeys(source.names) | (expected or {}), dtype)


def refusal(folder, **how) -> str:
    with pytest.raises(CheckpointError) as caught:
        merged(folder, **how)
    return str(caught.value)


def change(file, how) -> None:
    """Change the weights of one rank, of a file of plain tensors."""
    stored = torch.load(file, weights_only=True)
    how(stored)
    torch.save(stored, file)


class TestWholes:
    @pytest.mark.parametrize(("form", "name"), RANK_FORMS)
    def test_are_the_tensors_that_were_sharded(self, sharded_forms, form, name):
        truth = original(name).state_dict()
        found = merged(sharded_forms / form)
        assert set(found) <= set(truth)
        assert set(truth) - set(found) <= {"lm_head.weight"}  # tied: it may be saved once
        for key, tensor in found.items():
            assert torch.equal(tensor, truth[key]), key
            assert tensor.is_contiguous()
            assert not tensor.requires_grad

    def test_the_forms_are_what_they_are_called(self, sharded_forms):
        """That the older ShardedTensor, uneven and empty parts, and replicas are among them."""
        from opd_diag.inference.pickles import field, read_tensors

        def parts(form):
            return [read_tensors(file) for file in files(sharded_forms / form)]

        assert all(isinstance(t.state[0], list) for t in parts("two/sharded-tensor")[0].values())
        rows = [field(p["model.embed_tokens.weight"].state, "_local_tensor").shape[0] for p in parts("uneven/fsdp2")]
        assert rows == [54, 54, 53]
        keys = "model.layers.0.self_attn.k_proj.weight"
        assert [field(p[keys].state, "_local_tensor").shape[0] for p in parts("uneven/fsdp2")] == [2, 2, 0]
        first, second, third, fourth = (p[keys].state for p in parts("replicas"))
        assert torch.equal(field(first, "_local_tensor"), field(third, "_local_tensor"))
        assert torch.equal(field(second, "_local_tensor"), field(fourth, "_local_tensor"))

    def test_fewer_bits_are_widened_and_more_are_left(self, sharded_forms):
        truth = original("untied").bfloat16().state_dict()
        for dtype, kept in ((torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)):
            found = merged(sharded_forms / "two" / "fsdp2-half", dtype)
            assert {t.dtype for t in found.values()} == {kept}
            assert all(torch.equal(t, truth[name].to(kept)) for name, t in found.items())
        assert {t.dtype for t in merged(sharded_forms / "two" / "fsdp1", torch.bfloat16).values()} == {torch.float32}

    def test_names_of_classes_as_older_torch_wrote_them(self, sharded_forms, tmp_path):
        folder = copy(sharded_forms / "two" / "fsdp2-tied", tmp_path / "old")
        seen = []
        for file in files(folder):
            rewrite(file, lambda code: seen.append(code) or older(code))
        assert all(older(code) != code for code in seen)
        truth, found = original("tied").state_dict(), merged(folder)
        assert set(found) == set(truth)
        assert all(torch.equal(t, truth[name]) for name, t in found.items())

    @pytest.mark.parametrize(("form", "name"), [("fsdp2-tied", "tied"), ("sharded-tensor", "untied")])
    def test_saved_from_a_gpu_that_is_not_here(self, sharded_forms, tmp_path, form, name):
        folder = copy(sharded_forms / "two" / form, tmp_path / "gpu")
        for file in files(folder):
            rewrite(file, on_a_gpu)
        truth, found = original(name).state_dict(), merged(folder)
        assert set(found) == set(truth)
        assert all(torch.equal(t, truth[key]) for key, t in found.items())

    def test_only_what_is_wanted_is_put_together(self, sharded_forms):
        source = RankFiles(files(sharded_forms / "two" / "fsdp1"))
        assert len(source.names) > 20
        assert list(source.read({"model.norm.weight": (32,)}, torch.float32)) == ["model.norm.weight"]

    def test_one_rank_is_in_memory_at_a_time(self, sharded_forms, monkeypatch):
        read, alive = ranks.read_tensors, []

        def reading(file, **how):
            gc.collect()
            assert not [part for part in alive if part() is not None]
            stored = read(file, **how)
            alive.extend(weakref.ref(tensor) for tensor in stored.values())
            return stored

        monkeypatch.setattr(ranks, "read_tensors", reading)
        merged(sharded_forms / "replicas")
        assert len(alive) > 80


def on_a_gpu(code: bytes) -> bytes:
    """Say that tensors lay on a GPU."""
    assert code.count(b"X\3\0\0\0cpu") > 1
    return code.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:3")


def older(code: bytes) -> bytes:
    """Name classes as torch 2.4 did."""
    for new, old in (
        (b"torch.distributed.tensor\nDTensor\n", b"torch.distributed._tensor.api\nDTensor\n"),
        (b"torch.distributed.tensor.placement_types\n", b"torch.distributed._tensor.placement_types\n"),
        (b"torch.distributed.tensor._dtensor_spec\n", b"torch.distributed._tensor.placement_types\n"),
        (b"\nShardOrderEntry\n", b"\nTensorMeta\n"),
    ):
        code = code.replace(new, old)
    return code


class TestPlainTensors:
    """Files that say nothing of parts: of one rank, of buffers that all have, or of rows."""

    def write(self, folder, *states):
        for rank, state in enumerate(states):
            torch.save(state, folder / f"model_world_size_{len(states)}_rank_{rank}.pt")
        return folder

    def test_of_one_rank(self, tmp_path):
        state = {"a": torch.arange(6.0).view(2, 3).t(), "n": torch.tensor(4)}
        found = merged(self.write(tmp_path, state))
        assert torch.equal(found["a"], state["a"])
        assert torch.equal(found["n"], state["n"])
        assert found["a"].is_contiguous()

    def test_the_same_on_all_ranks(self, tmp_path):
        state = {"a": torch.arange(6.0), "n": torch.tensor(4)}
        found = merged(self.write(tmp_path, state, state))
        assert torch.equal(found["a"], state["a"])
        assert torch.equal(found["n"], state["n"])

    def test_rows_of_each_rank(self, tmp_path):
        whole = torch.arange(10.0).view(5, 2).half()
        found = merged(self.write(tmp_path, {"a": whole[:3]}, {"a": whole[3:]}))
        assert torch.equal(found["a"], whole.float())

    def test_rows_that_are_equal_are_told_from_copies_by_the_shape(self, tmp_path):
        folder = self.write(tmp_path, {"a": torch.ones(2)}, {"a": torch.ones(2)})
        assert merged(folder)["a"].shape == (2,)
        assert merged(folder, expected={"a": (4,)})["a"].shape == (4,)

    def test_ranks_that_disagree(self, tmp_path):
        folder = self.write(tmp_path, {"n": torch.tensor(1)}, {"n": torch.tensor(2)})
        assert refusal(folder) == f"{folder}: ranks disagree about n. Save the checkpoint again."

    def test_in_parts_on_one_rank_only(self, sharded_forms, tmp_path):
        folder = copy(sharded_forms / "two" / "fsdp1", tmp_path / "mixed")
        torch.save({name: torch.ones(1) for name in RankFiles(files(folder)).names}, files(folder)[1])
        assert refusal(folder) == f"{folder}: model.embed_tokens.weight is in parts on some ranks only. Save it again."


class TestRefusals:
    @pytest.fixture
    def folder(self, sharded_forms, tmp_path):
        return copy(sharded_forms / "two" / "fsdp2-tied", tmp_path / "actor")

    def test_another_run_left_one_of_the_files(self, folder):
        torch.save({"other": torch.ones(1)}, files(folder)[1])
        assert refusal(folder) == (
            f"{files(folder)[1]} and model_world_size_2_rank_0.pt do not hold the same weights (lm_head.weight, "
            f"model.embed_tokens.weight, model.layers.0.input_layernorm.weight, …): they are of two saves. Copy or "
            "save the checkpoint again."
        )

    def test_a_part_that_stands_twice(self, folder):
        first, second = files(folder)
        second.write_bytes(first.read_bytes())
        assert refusal(folder) == (
            f"{folder} has 2,560 of 5,120 numbers of model.embed_tokens.weight: a rank's part is missing. Copy or save "
            "the checkpoint again."
        )

    def test_another_shape_than_the_config_says(self, folder):
        assert refusal(folder, expected={"model.norm.weight": (64,)}) == (
            f"{files(folder)[0]}: model.norm.weight has shape (32,), its config says (64,). Save the checkpoint again "
            "with the config that it was trained with."
        )

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_file_that_is_cut_short(self, folder, number):
        file = files(folder)[number]
        file.write_bytes(file.read_bytes()[:-50])
        assert refusal(folder) == f"{file} is damaged: its end is missing. Copy or save it again."

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_file_that_would_run_code(self, folder, tmp_path, number):
        file = files(folder)[number]
        torch.save({name: Bomb(tmp_path / "exploded") for name in RankFiles(files(folder)).names}, file)
        assert refusal(folder).startswith(f"{file} holds more than tensors (posix.system): ")
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("kind", ["Partial", "_StridedShard"])
    def test_a_cut_that_is_not_known(self, folder, kind):
        for file in files(folder):
            rewrite(
                file,
                lambda code: code.replace(b"placement_types\nShard\n", b"placement_types\n" + kind.encode() + b"\n"),
            )
        assert refusal(folder) == (
            f"{files(folder)[0]}: model.embed_tokens.weight is cut in a way that is not read here ({kind}): merge the "
            "checkpoint with the trainer's own tool."
        )

    def test_two_cuts(self, sharded_forms):
        folder = sharded_forms / "replicas" / "grid"
        assert refusal(folder) == (
            f"{files(folder)[0]}: weight is cut in a way that is not read here (Shard, Shard): merge the checkpoint "
            "with the trainer's own tool."
        )

    def test_a_mesh_that_is_not_told(self, folder):
        for file in files(folder):
            rewrite(file, lambda code: code.replace(b"_coordinate_on_dim", b"_coordinate_at_dim"))
        assert refusal(folder) == (
            f"{files(folder)[0]}: model.embed_tokens.weight is cut in a way that is not read here (its mesh): merge "
            "the checkpoint with the trainer's own tool."
        )
