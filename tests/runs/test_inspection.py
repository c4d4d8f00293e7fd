"""``inspect`` shows every checkpoint, blocked ones with the way out, and whether what the manifest names is there."""

import os
import time
from pathlib import Path

import pytest

from opd_diag.runs import NamedInput, find_checkpoints, inspection_rows, named_inputs, read_manifest, step_zero
from opd_diag.runs.holdings import SAVE_AGAIN
from opd_diag.runs.inspection import JUST_WRITTEN, RecordedRow, recorded_rows
from opd_diag.runs.recorded import RecordedFile

from . import trainers
from .folders import TENSORS, adapter, full_model, sharded_model, trainer_run, write


def test_rows_of_a_run_with_a_damaged_checkpoint(tmp_path):
    trainer_run(tmp_path, steps=(20, 40))
    (tmp_path / "checkpoint-40" / "model.safetensors").write_bytes(TENSORS[:-1])
    first, second = inspection_rows(find_checkpoints(tmp_path))
    assert (first.step, first.label, first.kind, first.loadable, first.complete) == (20, "step 20", "full", True, True)
    assert (first.blocker, first.way_out, first.note) == ("", "", "")
    assert first.path == str(tmp_path / "checkpoint-20")
    assert first.megabytes == len(TENSORS) / 1e6
    assert (second.loadable, second.code, second.way_out) == (False, "INCOMPLETE_WEIGHTS", SAVE_AGAIN)
    assert second.blocker.startswith("model.safetensors is truncated")
    assert second.megabytes == (len(TENSORS) - 1) / 1e6


def test_size_is_the_sum_of_the_shards(tmp_path):
    sharded_model(tmp_path / "checkpoint-1", shards=3)
    (row,) = inspection_rows(find_checkpoints(tmp_path))
    assert row.megabytes == 3 * len(TENSORS) / 1e6


def test_an_adapter_shows_its_base_and_its_own_size(tmp_path):
    adapter(tmp_path / "checkpoint-1", "org/base")
    (row,) = inspection_rows(find_checkpoints(tmp_path))
    assert (row.kind, row.base_model, row.megabytes) == ("adapter", "org/base", len(TENSORS) / 1e6)


def test_sizes_that_nobody_knows_are_none_not_zero(tmp_path):
    write(tmp_path / "checkpoint-1", {"config.json": "{}"})
    rows = inspection_rows([step_zero("org/student", []), *find_checkpoints(tmp_path)])
    assert [row.megabytes for row in rows] == [None, None]


def test_named_inputs_and_whether_they_are_there(tmp_path):
    (tmp_path / "rollouts").mkdir()
    text = 'student = "./gone"\nteacher = "org/t"\nprompts = "p.jsonl"\nrollouts = "rollouts"\nteacher_template = "t"'
    write(tmp_path, {"opd-diag.toml": text, "p.jsonl": ""})
    assert named_inputs(read_manifest(tmp_path).settings) == [
        NamedInput("student", str(tmp_path / "gone"), "missing"),
        NamedInput("teacher", "org/t", "hub id"),
        NamedInput("prompts", str(tmp_path / "p.jsonl"), "file"),
        NamedInput("rollouts", str(tmp_path / "rollouts"), "folder"),
        NamedInput("teacher_template", str(tmp_path / "t"), "missing"),
    ]
    assert named_inputs({"k": 16, "teacher": None}) == []


SHARD = len(trainers.SHARD)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (trainers.verl_fsdp, 2 * SHARD),
        (trainers.prime_rl, 2 * SHARD + len(b"\x80")),
        (trainers.slime, 2 * SHARD),
        (trainers.slime_legacy, 2 * SHARD),
        (trainers.openrlhf_adapter, SHARD),
    ],
)
def test_sizes_of_other_kinds_are_those_of_their_weights(tmp_path, make, size):
    (row, *_) = inspection_rows(find_checkpoints(make(tmp_path)))
    assert row.megabytes == size / 1e6


def test_what_lies_beside_the_weights_that_are_used_does_not_count(tmp_path):
    adapter(tmp_path / "checkpoint-1", **{"adapter_model.bin": TENSORS})
    write(sharded_model(tmp_path / "checkpoint-2"), {"pytorch_model.bin": TENSORS})
    sizes = [row.megabytes for row in inspection_rows(find_checkpoints(tmp_path))]
    assert sizes == [len(TENSORS) / 1e6, 2 * len(TENSORS) / 1e6]


def test_what_was_just_written_may_be_written_to_yet(tmp_path):
    full_model(tmp_path / "checkpoint-1")
    trainer_run(tmp_path, steps=(2,))
    file = tmp_path / "checkpoint-1" / "model.safetensors"
    notes = [row.note for row in inspection_rows(find_checkpoints(tmp_path))]
    assert notes == ["It was written to less than a minute ago: its save may go on.", ""]
    before = time.time() - JUST_WRITTEN - 5
    os.utime(file, (before, before))
    assert [row.note for row in inspection_rows(find_checkpoints(tmp_path))] == ["", ""]


def test_recorded_files_of_one_folder_are_one_row():
    files = [
        RecordedFile(Path("run/completions") / f"completions_{n:05d}.parquet", "trl", n, "text-stripped")
        for n in (9, 40)
    ]
    files += [RecordedFile(Path(f"run/token_exports/step_{n}/rank_0.jsonl"), "prime-tokens", n, "ids") for n in (1, 2)]
    files += [RecordedFile(Path("run/completions.jsonl"), "ms-swift", None, "text-stripped", True)]
    assert recorded_rows(files) == [
        RecordedRow("trl", "run/completions", 2, "9 to 40", "text-stripped", False),
        RecordedRow("prime-tokens", "run/token_exports", 2, "1 to 2", "ids", False),
        RecordedRow("ms-swift", "run", 1, "", "text-stripped", True),
    ]
    assert recorded_rows([]) == []
