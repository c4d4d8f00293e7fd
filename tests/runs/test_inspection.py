"""``inspect`` shows every checkpoint, blocked ones with the way out, and whether what the manifest names is there."""

from opd_diag.runs import NamedInput, find_checkpoints, inspection_rows, named_inputs, read_manifest, step_zero

from .folders import TENSORS, adapter, sharded_model, trainer_run, write


def test_rows_of_a_run_with_a_damaged_checkpoint(tmp_path):
    trainer_run(tmp_path, steps=(20, 40))
    (tmp_path / "checkpoint-40" / "model.safetensors").write_bytes(TENSORS[:-1])
    first, second = inspection_rows(find_checkpoints(tmp_path))
    assert (first.step, first.label, first.kind, first.loadable, first.complete) == (20, "step 20", "full", True, True)
    assert (first.blocker, first.way_out, first.note) == ("", "", "")
    assert first.path == str(tmp_path / "checkpoint-20")
    assert first.megabytes == len(TENSORS) / 1e6
    assert (second.loadable, second.way_out) == (False, "Copy or save it again.")
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
