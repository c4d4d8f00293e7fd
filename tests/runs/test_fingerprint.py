"""The key of a checkpoint follows all of its content, and nothing else."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opd_diag.errors import CheckpointError
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs import find_checkpoints, fingerprint, step_zero
from opd_diag.runs.digests import Digests
from opd_diag.runs.fingerprint import checkpoint_content, checkpoint_stamps, refuse_other

from .folders import TENSORS, adapter, full_model, sharded_model, trainer_run, write


class TestFingerprint:
    def key(self, run_dir):
        return fingerprint(find_checkpoints(run_dir)[0])

    def test_is_the_same_for_the_same_files_wherever_they_stand(self, tmp_path):
        trainer_run(tmp_path / "a", steps=(1,))
        before = self.key(tmp_path / "a")
        assert len(before) == 64
        assert self.key(tmp_path / "a") == before
        (tmp_path / "a").rename(tmp_path / "b")
        assert self.key(tmp_path / "b") == before

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "generation_config.json"])
    def test_follows_size_and_content_of_weights_and_configs(self, tmp_path, name):
        file = write(trainer_run(tmp_path, steps=(1,)) / "checkpoint-1", {"generation_config.json": "{}"}) / name
        before, content, stat = self.key(tmp_path), file.read_bytes(), file.stat()
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
        assert self.key(tmp_path) == before
        file.write_bytes(content + b" ")
        longer = self.key(tmp_path)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert len({before, longer, self.key(tmp_path)}) == 3

    def test_sees_one_flipped_bit_anywhere_in_a_large_file(self, tmp_path):
        file = trainer_run(tmp_path, steps=(1,)) / "checkpoint-1" / "model.safetensors"
        save_file({"weight": np.zeros(3 * 2**20, np.float32)}, file)
        before = self.key(tmp_path)
        for place in (100_000, 2**20 + 70_001, 3 * 2**22 - 1):
            with file.open("r+b") as handle:
                handle.seek(place)
                handle.write(b"\1")
            assert self.key(tmp_path) != before
            with file.open("r+b") as handle:
                handle.seek(place)
                handle.write(b"\0")
            assert self.key(tmp_path) == before

    def test_the_order_of_tensors_and_metadata_are_no_weights(self, tmp_path):
        file = trainer_run(tmp_path, steps=(1,)) / "checkpoint-1" / "model.safetensors"
        tensors = {name: np.arange(n, dtype=np.float32) for name, n in (("a", 3), ("b", 4))}
        save_file(tensors, file)
        before = self.key(tmp_path)
        save_file(tensors, file, metadata={"format": "pt"})
        assert self.key(tmp_path) == before
        save_file({"a": tensors["b"], "b": tensors["a"]}, file)
        swapped = self.key(tmp_path)
        save_file({"a": tensors["a"].reshape(1, 3), "b": tensors["b"]}, file)
        reshaped = self.key(tmp_path)
        save_file({"a": tensors["a"].view(np.int32), "b": tensors["b"]}, file)
        assert len({before, swapped, reshaped, self.key(tmp_path)}) == 4

    def test_leaves_other_files_out(self, tmp_path):
        trainer_run(tmp_path, steps=(1,))
        before = self.key(tmp_path)
        write(tmp_path / "checkpoint-1", {"optimizer.pt": b"1", "trainer_state.json": "{ }"})
        assert self.key(tmp_path) == before

    def test_of_an_adapter_follows_its_base(self, tmp_path):
        folder = adapter(tmp_path / "run" / "checkpoint-1", "org/a")
        base = full_model(tmp_path / "base")
        keys = {fingerprint(find_checkpoints(folder.parent, base_model=b)[0]) for b in (None, "org/b", str(base))}
        write(base, {"config.json": '{"changed": 1}'})
        keys.add(fingerprint(find_checkpoints(folder.parent, base_model=str(base))[0]))
        assert len(keys) == 4

    def test_of_hub_ids_is_the_id(self):
        ids = ("org/a", "org/a@v2", "org/b")
        assert len({fingerprint(step_zero(name, [])) for name in ids}) == 3
        assert fingerprint(step_zero("org/a", [])) == fingerprint(step_zero("org/a", []))


FILES = {
    "fsdp": (
        *("model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"),
        *("lora_train_meta.json", "huggingface/config.json", "huggingface/generation_config.json"),
    ),
    "distributed": (".metadata", "__0_0.distcp", "__1_0.distcp", "huggingface/config.json"),
    "full": ("pytorch_model.bin", "config.json"),
    "adapter": ("adapter_model.bin", "adapter_config.json"),
}


class TestSharded:
    """Weights in parts: every byte of every file counts, and so does the config that lies elsewhere."""

    def found(self, folder, kind):
        for name in FILES[kind]:
            write((folder / name).parent, {(folder / name).name: f"{name} {kind}"})
        elsewhere = None if kind in ("full", "adapter") else folder / "huggingface"
        return Checkpoint(
            "step 1", 1, folder, kind, config=elsewhere, base_model="org/a" if kind == "adapter" else None
        )

    @pytest.mark.parametrize("kind", FILES)
    def test_every_byte_counts(self, tmp_path, kind):
        found = self.found(tmp_path / "a", kind)
        keys = [fingerprint(found)]
        for name in FILES[kind]:
            file = tmp_path / "a" / name
            file.write_bytes(file.read_bytes()[:-1] + b"?")
            keys.append(fingerprint(found))
        assert len(set(keys)) == 1 + len(FILES[kind])
        assert fingerprint(self.found(tmp_path / "b", kind)) == keys[0]

    @pytest.mark.parametrize("kind", FILES)
    def test_all_files_are_watched_and_no_others(self, tmp_path, kind):
        found = self.found(tmp_path, kind)
        write(tmp_path, {"optim_world_size_2_rank_0.pt": "o", "fsdp_config.json": "{}", "trainer_state.json": "{}"})
        content = checkpoint_content(found, Digests())
        assert set(content.stamps) == {tmp_path / name for name in FILES[kind]}
        assert content.stamps == checkpoint_stamps(found)
        for name in FILES[kind]:
            (tmp_path / name).write_text("other")
            with pytest.raises(CheckpointError) as caught:
                refuse_other(content, checkpoint_content(found, Digests()))
            assert "it holds other bytes than when this report began" in str(caught.value)
            self.found(tmp_path, kind)

    def test_those_in_a_folder_within_are_found(self, tmp_path):
        self.found(tmp_path / "pytorch_model_fsdp_0", "distributed")
        content = checkpoint_content(Checkpoint("step 1", 1, tmp_path, "distributed"), Digests())
        names = {f"pytorch_model_fsdp_0/{name}" for name in FILES["distributed"][:3]}
        assert set(content.own.files) == names

    def test_a_config_of_the_hub_counts_by_its_id(self, tmp_path):
        found = self.found(tmp_path, "distributed")
        keys = {fingerprint(replace(found, config=Path(name))) for name in ("org/a", "org/b")}
        assert len(keys | {fingerprint(found)}) == 3


class TestContent:
    def test_tensors_are_found_by_name_whatever_file_they_lie_in(self, tmp_path):
        content = checkpoint_content(find_checkpoints(sharded_model(tmp_path))[0], Digests())
        assert content.weights.tensors == {}  # both shards name the same tensors: which counts is not known here
        save_file({"other": np.zeros(2, np.float32)}, tmp_path / "model-00002-of-00002.safetensors")
        content = checkpoint_content(find_checkpoints(tmp_path)[0], Digests())
        assert {name: file.name[:7] for name, (file, _) in content.weights.tensors.items()} == {
            "weight": "model-0", "bias": "model-0", "other": "model-0"
        }  # fmt: skip
        assert content.weights.tensors["other"][0].name == "model-00002-of-00002.safetensors"

    def test_an_adapter_and_what_is_under_it(self, tmp_path):
        base = full_model(tmp_path / "base")
        folder = adapter(tmp_path / "run" / "checkpoint-1", str(base))
        content = checkpoint_content(find_checkpoints(folder.parent)[0], Digests())
        assert content.weights is content.base
        assert content.adapter_tensors == {"weight", "bias"}
        assert set(content.stamps) == {
            *(folder / n for n in ("adapter_config.json", "adapter_model.safetensors")),
            *(base / n for n in ("config.json", "model.safetensors")),
        }
        assert content.stamps == checkpoint_stamps(find_checkpoints(folder.parent)[0])
        assert checkpoint_content(find_checkpoints(base)[0], Digests()).adapter_tensors == set()

    def test_of_a_hub_id_nothing_is_known(self):
        content = checkpoint_content(step_zero("org/a", []), Digests())
        assert (content.stamps, content.weights.tensors, content.weights.known) == ({}, {}, "org/a")
        assert checkpoint_stamps(step_zero("org/a", [])) == {}

    def test_a_file_that_cannot_be_read(self, tmp_path, monkeypatch):
        found = find_checkpoints(trainer_run(tmp_path, steps=(1,)))[0]

        def unreadable(digests, file, stop):
            raise OSError(13, "Permission denied", str(file))

        monkeypatch.setattr(Digests, "of", unreadable)
        with pytest.raises(CheckpointError) as caught:
            fingerprint(found)
        assert str(caught.value) == (
            f"step 1: {tmp_path / 'checkpoint-1' / 'config.json'} cannot be read: Permission denied. Check that it is "
            "still there and that you may read it."
        )

    @pytest.mark.parametrize(
        ("harm", "how"),
        [
            (lambda file: file.unlink(), "it is gone"),
            (lambda file: file.write_bytes(TENSORS[:-1] + b"\7"), "it holds other bytes than when this report began"),
        ],
        ids=["gone", "written"],
    )
    @pytest.mark.parametrize("where", ["base", "run/checkpoint-1"])
    def test_other_content_is_refused_by_the_name_of_the_file(self, tmp_path, where, harm, how):
        adapter(tmp_path / "run" / "checkpoint-1", str(full_model(tmp_path / "base")))
        found = find_checkpoints(tmp_path / "run")[0]
        before = checkpoint_content(found, Digests())
        refuse_other(before, checkpoint_content(found, Digests()))
        file = next((tmp_path / where).glob("*.safetensors"))
        harm(file)
        with pytest.raises(CheckpointError) as caught:
            refuse_other(before, checkpoint_content(found, Digests()))
        assert str(caught.value).startswith(f"{file} changed while it was read: {how}.")

    def test_a_copy_with_other_times_is_the_same(self, tmp_path):
        first = trainer_run(tmp_path / "a", steps=(1,))
        shutil.copytree(first, tmp_path / "b", copy_function=shutil.copyfile)
        contents = [checkpoint_content(find_checkpoints(tmp_path / n)[0], Digests()) for n in "ab"]
        refuse_other(*contents)
        assert contents[0].key == contents[1].key
        assert contents[0].stamps != contents[1].stamps
