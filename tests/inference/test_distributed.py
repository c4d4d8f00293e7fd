"""A torch distributed checkpoint gives the tensors that were saved, and runs nothing of what it names."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from sharded_runs import DISTRIBUTED_FORMS, copy, original
from torch.distributed import checkpoint as torch_checkpoint

from opd_diag.errors import CheckpointError
from opd_diag.inference.distributed import DistributedCheckpoint, read_metadata
from opd_diag.runs.sharded import METADATA

from .test_pickles import Bomb

EMBEDDING = "model.model.embed_tokens.weight"


def read(folder, *names, dtype=torch.float32, expected=None, **how):
    return DistributedCheckpoint(folder, **how).read(dict.fromkeys(names) | (expected or {}), dtype)


def save_alone(folder, state) -> None:
    """Write a checkpoint as one process does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # which is what is meant
        torch_checkpoint.save(state, checkpoint_id=folder)


def refusal(call, *args, **how) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args, **how)
    refusal.code = caught.value.code
    return str(caught.value)


@pytest.fixture
def folder(sharded_forms, tmp_path):
    return copy(sharded_forms / "two" / "accelerate" / "pytorch_model_fsdp_0", tmp_path / "own")


@pytest.fixture
def changed(folder):
    """Write what torch's own reader finds in ``.metadata`` back, changed."""

    def change(how):
        with (folder / METADATA).open("rb") as handle:
            metadata = pickle.load(handle)
        metadata = how(metadata) or metadata
        (folder / METADATA).write_bytes(pickle.dumps(metadata))
        return folder

    return change


class TestReading:
    @pytest.mark.parametrize(("form", "name"), DISTRIBUTED_FORMS)
    def test_tensors_are_those_that_were_sharded(self, sharded_forms, form, name):
        truth = original(name).state_dict()
        stored = DistributedCheckpoint(sharded_forms / form)
        found = stored.read(dict.fromkeys(stored.names), torch.float32)
        assert set(found) <= {f"model.{key}" for key in truth}
        assert len(found) >= len(truth) - 1  # a tied head may be saved once
        assert all(torch.equal(tensor, truth[key.removeprefix("model.")]) for key, tensor in found.items())

    def test_written_by_one_process_alone(self, tmp_path):
        state = {"model": {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3), "said": "text"}, "step": 4}
        save_alone(tmp_path, state)
        assert DistributedCheckpoint(tmp_path).names == ["model.a", "model.n"]
        found = read(tmp_path, "model.a", "model.n")
        assert torch.equal(found["model.a"], state["model"]["a"])
        assert torch.equal(found["model.n"], state["model"]["n"])

    def test_fewer_bits_are_widened_and_more_are_left(self, tmp_path):
        whole = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
        save_alone(tmp_path, {"a": whole})
        assert torch.equal(read(tmp_path, "a")["a"], whole.float())
        assert read(tmp_path, "a", dtype=torch.float16)["a"].dtype == torch.bfloat16

    def test_what_is_not_wanted_is_not_read(self, sharded_forms, tmp_path):
        """Of prime-rl, whose files hold the optimiser too: its bytes may as well be nonsense."""
        folder = copy(sharded_forms / "two" / "prime-rl" / "trainer", tmp_path / "trainer")
        names = [name for name in DistributedCheckpoint(folder).names if name.startswith("app.model.")]
        others = [e for e in read_metadata(folder).storage_data.items() if not e[0].fqn.startswith("app.model.")]
        assert sum(info.length for _, info in others) > 100_000
        for _, info in others:
            with (folder / info.relative_path).open("r+b") as handle:
                handle.seek(info.offset)
                handle.write(b"\xff" * info.length)
        truth = torch.load(sharded_forms / "two" / "prime-rl" / "whole.pt", weights_only=True)
        found = read(folder, *names)
        assert all(torch.equal(tensor, truth[name.removeprefix("app.model.")]) for name, tensor in found.items())
        assert len(found) == len(truth)
        moments = next(name for name in DistributedCheckpoint(folder).names if name.endswith("exp_avg"))
        assert "is damaged" in refusal(read, folder, moments)  # the test would see that they were read

    def test_nothing_is_said(self, folder, capfd, recwarn):
        read(folder, EMBEDDING)
        (folder / "__1_0.distcp").write_bytes(b"")
        refusal(read, folder, EMBEDDING)
        assert capfd.readouterr() == ("", "")
        assert not [w for w in recwarn if "distributed" in str(w.message)]


class TestPickles:
    @pytest.mark.parametrize(
        "put",
        [
            lambda metadata, bomb: bomb,
            lambda metadata, bomb: setattr(metadata, "planner_data", {"a": bomb}),
            lambda metadata, bomb: setattr(metadata.storage_meta, "checkpoint_id", bomb),
            lambda metadata, bomb: metadata.state_dict_metadata.update({"a": bomb}),
        ],
        ids=["all", "planner", "storage", "tensor"],
    )
    def test_metadata_that_would_run_code_is_refused_though_torch_would_run_it(self, changed, tmp_path, put):
        proof = tmp_path / "exploded"
        folder = changed(lambda metadata: put(metadata, Bomb(proof)))
        assert refusal(read, folder, EMBEDDING) == (
            f"{folder / METADATA} holds more than tensors (posix.system): reading it could run code that came with it. "
            "Load it where you trust it and save the model with save_pretrained, which writes safetensors."
        )
        assert refusal.code == "PICKLE_REFUSED"
        assert not proof.exists()
        with (folder / METADATA).open("rb") as handle:
            pickle.load(handle)  # as torch's own reader of files does
        assert proof.exists()

    @pytest.mark.parametrize("named", [b"torch\nload\n", b"torch.serialization\nload\n", b"builtins\ngetattr\n"])
    def test_other_names_of_torch_are_no_way_around(self, folder, named):
        (folder / METADATA).write_bytes(b"\x80\x02c" + named + b".")
        assert f"({named.decode().strip().replace(chr(10), '.')})" in refusal(read, folder, EMBEDDING)

    @pytest.mark.parametrize("allowed", [False, True])
    def test_a_part_that_would_run_code(self, changed, folder, tmp_path, allowed):
        """Not even where this process allowed torch to make such objects."""
        torch.save(Bomb(str(tmp_path / "exploded"), eval, "open({!r}, 'w').close()"), tmp_path / "bomb")
        file, bomb = folder / "__0_0.distcp", (tmp_path / "bomb").read_bytes()
        first = file.stat().st_size
        file.write_bytes(file.read_bytes() + bomb)

        def point_at_it(metadata):
            info = next(i for at, i in metadata.storage_data.items() if at.fqn == EMBEDDING and at.offset[0] == 0)
            info.relative_path, info.offset, info.length = file.name, first, len(bomb)

        with torch.serialization.safe_globals([(eval, "builtins.eval")] if allowed else []):
            message = refusal(read, changed(point_at_it), EMBEDDING)
        assert message.startswith(f"{file} holds more than tensors (eval): ")
        assert not (tmp_path / "exploded").exists()

    def test_an_old_torch_reads_none_unless_it_is_allowed(self, folder, monkeypatch):
        monkeypatch.setattr(torch, "__version__", "2.8.0")
        assert refusal(read, folder, EMBEDDING).startswith(
            f"{folder / '__0_0.distcp'} is a pickle, and torch 2.8.0 reads"
        )
        assert list(read(folder, EMBEDDING, allow_pickle=True)) == [EMBEDDING]


class TestRefusals:
    def damage(self, folder) -> str:
        message = refusal(read_metadata, folder)
        start, end = f"{folder / METADATA} is damaged: ", ". Copy or save it again."
        assert message.startswith(start)
        assert message.endswith(end)
        return message[len(start) : -len(end)]

    def test_a_file_that_is_not_there(self, folder):
        (folder / "__1_0.distcp").unlink()
        assert refusal(read_metadata, folder) == (
            f"{folder / METADATA} names files that are not there (__1_0.distcp): the save was interrupted, or the "
            "copy. Copy or save it again."
        )
        assert refusal.code == "INCOMPLETE_WEIGHTS"

    @pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
    def test_metadata_that_is_cut_short(self, folder, kept):
        whole = (folder / METADATA).read_bytes()
        (folder / METADATA).write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
        assert self.damage(folder)

    def test_a_file_that_is_cut_short(self, folder):
        file = folder / "__1_0.distcp"
        file.write_bytes(file.read_bytes()[:2000])
        message = refusal(read, folder, *DistributedCheckpoint(folder).names)
        assert message.startswith(f"{folder}/__")
        assert " is damaged: " in message

    def test_a_name_that_leads_elsewhere(self, changed):
        for path in ("../__0_0.distcp", "/etc/passwd", "sub/__0_0.distcp", "__0_0.pt"):

            def elsewhere(metadata, path=path):
                next(iter(metadata.storage_data.values())).relative_path = path

            assert self.damage(changed(elsewhere)) == f"{path} is no file of a distributed checkpoint"

    def test_parts_that_are_not_all_there(self, changed):
        def without_a_part(metadata):
            metadata.state_dict_metadata[EMBEDDING].chunks.pop()

        assert self.damage(changed(without_a_part)) == f"it does not say where all of {EMBEDDING} is"

    def test_a_part_outside_of_its_tensor(self, changed):
        def moved(metadata):
            chunk = metadata.state_dict_metadata[EMBEDDING].chunks[1]
            chunk.offsets = torch.Size([chunk.offsets[0] + 1, 0])

        assert self.damage(changed(moved)) == f"it does not say where all of {EMBEDDING} is"

    def test_a_part_that_lies_nowhere(self, changed):
        def forgotten(metadata):
            metadata.storage_data = {i: s for i, s in metadata.storage_data.items() if i.fqn != EMBEDDING}

        assert self.damage(changed(forgotten)) == f"it does not say where all of {EMBEDDING} is"

    def test_sizes_that_are_none(self, changed):
        def negative(metadata):
            metadata.state_dict_metadata[EMBEDDING].size = torch.Size([-1, 3])

        assert self.damage(changed(negative)) == "torch.Size([-1, 3]) are no sizes"

    def test_compressed_parts(self, changed):
        def compressed(metadata):
            next(iter(metadata.storage_data.values())).transform_descriptors = ["stream.zstd/1"]

        assert self.damage(changed(compressed)) == "__0_0.distcp is compressed, which is not read here"

    @pytest.mark.parametrize("content", [{"a": 1}, [], "text", None])
    def test_metadata_of_something_else(self, folder, content):
        (folder / METADATA).write_bytes(pickle.dumps(content))
        assert self.damage(folder) == f"it holds {type(content).__name__}, not what torch writes"

    def test_another_shape_than_the_config_says(self, folder):
        assert refusal(read, folder, expected={EMBEDDING: (160, 64)}) == (
            f"{folder}: {EMBEDDING} has shape (160, 32), its config says (160, 64). Save the checkpoint again with the "
            "config that it was trained with."
        )
