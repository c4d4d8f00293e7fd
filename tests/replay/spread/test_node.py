"""What a worker finds and keeps on its machine."""

from __future__ import annotations

import os
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from opd_diag.diagnosis import plan_report
from opd_diag.errors import StoreError
from opd_diag.inference import HiddenStates, Shard
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.replay.served import Served
from opd_diag.replay.spread.node import Folder, Scratch, folders_of, for_workers, scratch_folder, unseen


def keeping(folder):
    store = Scratch(folder, folder)
    return store, store.shards(
        "key", ".safetensors", save=lambda path, states: states.save(path), load=HiddenStates, part_of_nothing=True
    )


def test_hidden_states_are_made_once_on_a_machine(tmp_path):
    """Whoever asks: what one worker kept the next one finds."""
    made = []

    def make():
        made.append(1)
        return HiddenStates(torch.arange(6.0).view(3, 2))

    for _ in range(2):
        _, keep = keeping(tmp_path)
        states = keep(Shard(0, 2, [[0]]), make)
        assert states.rows(1, 3).tolist() == [[2, 3], [4, 5]]
    assert len(made) == 1
    keep(Shard(1, 2, [[1]]), make)
    assert len(made) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_other_shards_are_not_kept(tmp_path):
    store = Scratch(tmp_path, tmp_path)
    keep = store.shards("key", ".jsonl", save=None, load=None)
    assert [keep(Shard(0, 2, []), lambda: "made") for _ in range(2)] == ["made", "made"]
    assert store.part("a/b", "key", make=lambda: "part", save=None, load=None) == store.handed == "part"
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_of_one_out_dir_and_ours_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    a, b = scratch_folder(Path("a")), scratch_folder(Path("b"))
    assert a == scratch_folder(Path("a").resolve()) != b
    assert a.parent == b.parent == tmp_path / f"opd-diag-{os.getuid()}"
    assert [path.stat().st_mode & 0o777 for path in (a, a.parent)] == [0o700, 0o700]
    (a / "file").touch()
    Scratch(a, a).leave()
    assert (a.exists(), b.exists()) == (False, True)


def test_a_folder_that_another_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"opd-diag-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(StoreError, match=r"^The folder .* for temporary files is another user's\. Set TMPDIR to one"):
        scratch_folder(Path("a"))


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(
        StoreError, match=r"^Cannot write .*: Not a directory\. Set TMPDIR to a folder with room on tha"
    ):
        scratch_folder(Path("a"))


def test_folders_that_every_machine_must_see(tiny_run, tmp_path, monkeypatch):
    """Named absolutely: workers have another working directory."""
    monkeypatch.chdir(tiny_run.root)
    plan = for_workers(plan_report("run", out=tmp_path / "out", checkpoints="10"))
    folders = folders_of(plan)
    assert [(folder.path, folder.whose) for folder in folders] == [
        (str(tiny_run.student), "step 0"),
        (str(tiny_run.checkpoint(10)), "step 10"),
        (str(tiny_run.teacher), "teacher"),
    ]
    assert unseen(folders) is None
    gone = Folder(str(tmp_path / "gone"), "step 20")
    assert unseen([folders[0], gone]) == gone
    assert pickle.loads(pickle.dumps(plan)).checkpoints == plan.checkpoints


def test_a_server_is_no_folder_and_its_connection_does_not_cross(tiny_run, tmp_path):
    """Also where the server calls the teacher by a folder that this machine has."""
    served = Served(object(), "vllm=http://10.0.0.1:8000", 20, 16)
    teacher = Checkpoint("teacher", None, tiny_run.teacher, "served")
    plan = replace(
        plan_report(tiny_run.run_dir, out=tmp_path / "out", checkpoints="10"), teacher=teacher, served=served
    )
    assert for_workers(plan).served is None
    assert [folder.whose for folder in folders_of(for_workers(plan))] == ["step 0", "step 10"]
