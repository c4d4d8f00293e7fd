"""``opd-diag inspect`` shows what loads, what blocks the rest and mends it, and what else was recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import trainers
from runs.folders import full_model, trainer_run, write
from typer.testing import CliRunner

from opd_diag.cli import app

NONE = "no rollouts, so that a report samples them from each checkpoint. To have the next run record its own: "

HEAVY = ("torch", "transformers", "pandas", "pyarrow", "matplotlib", "scipy", "safetensors")


@pytest.fixture(autouse=True)
def nothing_was_just_written(monkeypatch):
    monkeypatch.setattr("opd_diag.runs.inspection.JUST_WRITTEN", 0)


def inspected(*args):
    result = CliRunner().invoke(app, ["inspect", *map(str, args)])
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def refused(*args):
    result = CliRunner().invoke(app, ["inspect", *map(str, args)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def test_what_blocks_a_checkpoint_and_what_mends_it(tmp_path):
    head, first, second, *rest = inspected(trainers.openrlhf(tmp_path))
    assert head.split() == ["step", "label", "kind", "MB", "loadable", "path"]
    assert first.split() == ["100", "step", "100", "other", "0.0", "NEEDS_MERGE", f"{tmp_path}/_actor/global_step100"]
    assert second.split()[3:] == ["full", "0.0", "yes", f"{tmp_path}/global_step200_hf"]
    blocked, of_run, layout, recorded = rest
    assert blocked.startswith(
        f"step 100: It holds DeepSpeed shards, not Hugging Face weights. Run: python {tmp_path}/_actor/zero_to_fp32.py "
    )
    assert of_run.startswith("run: OpenRLHF deletes its worst checkpoints")
    assert layout == "layout: openrlhf"
    assert recorded == f"recorded: {NONE}opd_diag.integrations.Recorder takes them from any trainer (TRAINERS.md)."


def test_recorded_rollouts_and_logs_come_after(tmp_path):
    lines = inspected(trainers.trl(tmp_path))
    at = lines.index("layout: hf_trainer")
    assert [line.split() for line in lines[at + 1 :]] == [
        ["recorded", "steps", "files", "exactness", "folder"],
        ["trl", "20", "1", "text-stripped", f"{tmp_path}/completions"],
        ["log", "path"],
        ["trainer_state", f"{tmp_path}/checkpoint-100/trainer_state.json"],
    ]


@pytest.mark.parametrize(
    ("make", "switch"),
    [
        (trainers.hf_sharded, "of TRL, opd_diag.integrations.record(trainer) before train(), or log_completions=True"),
        (trainers.verl_fsdp, "trainer.rollout_data_dir=DIR, a folder in that of the run"),
        (trainers.skyrl, "trainer.dump_data_batch=true"),
        (trainers.nemo_rl, "nothing: name its log_dir with --rollouts"),
        (trainers.prime_rl, "trainer.enable_token_export=true"),
        (trainers.areal, "rollout.dump_to_file=true and rollout.tokenizer_path"),
        (trainers.roll, "rollout_dump_dir, an absolute path"),
        (trainers.slime, "of slime, --dump-details DIR"),
        (trainers.torchtune, "opd_diag.integrations.Recorder takes them from any trainer"),
    ],
)
def test_where_nothing_was_recorded_it_says_what_to_switch_on(tmp_path, make, switch):
    assert f"recorded: {NONE}{switch} (TRAINERS.md)." in inspected(make(tmp_path))


def test_what_was_recorded_needs_no_advice(tmp_path):
    assert not [line for line in inspected(trainers.trl(tmp_path)) if NONE in line]


def test_those_of_the_run_below_are_shown(tmp_path):
    lines = inspected(trainers.trl(tmp_path / "run").parent)
    assert f"run: The run is in {tmp_path}/run." in lines
    assert any(line.startswith("trl") for line in lines)


def test_options_reach_discovery(tmp_path):
    trainers.hf_fsdp(tmp_path)
    student = full_model(tmp_path / "start" / "student")
    assert [line.split()[5] for line in inspected(tmp_path)[1:3]] == ["CONFIG_MISSING"] * 2
    assert [line.split()[5] for line in inspected(tmp_path, "--student", student)[1:3]] == ["yes"] * 2
    rows = inspected(tmp_path, "--base-model", student, "--step-base", 0)[1:3]
    assert [(line.split()[0], line.split()[5]) for line in rows] == [("21", "yes"), ("41", "yes")]
    rows = inspected(tmp_path, "--steps", f"7={student}")
    assert rows[1].split()[0] == "7"
    assert "layout: manifest" in rows
    assert refused(tmp_path, "--layout", "verl_fsdp").endswith(" [NO_CHECKPOINTS]")


def test_a_tokenizer_that_is_nowhere_is_said(tmp_path):
    lines = inspected(trainer_run(tmp_path, tokenizer=False))
    assert "run: No tokenizer lies in the checkpoints or beside them. Name one with --tokenizer." in lines


def test_the_code_stands_behind_the_message(tmp_path):
    assert refused(tmp_path / "gone") == (
        f"error: Expected the folder a trainer wrote its checkpoints to; {tmp_path}/gone does not exist. "
        "[NOT_A_DIRECTORY]"
    )
    assert refused("s3://bucket/run").endswith("Download it first: aws s3 sync s3://bucket/run run. [NOT_A_DIRECTORY]")


def test_names_that_would_drive_the_terminal_are_shown_harmless(tmp_path):
    run = tmp_path / "a\x1b[2J\nb\u202e[red]"
    lines = inspected(trainers.side_by_side(run, ("ü\x07-1", "ü\x07-2")))
    assert len(lines) == 5
    text = "\n".join(lines)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "a\\x1b[2J\\nb\\u202e[red]/ü\\x07-1" in text
    (run / "ü\x07-1" / "model.safetensors").write_bytes(b"")
    assert "\x1b" not in "\n".join(inspected(run))
    assert "\x1b" not in refused(run, "--layout", "tinker")


def test_a_name_that_is_no_text(tmp_path):
    folder = Path(str(tmp_path) + "/run\udcff")
    full_model(folder)
    assert "run\\udcff" in inspected(folder)[1]


@pytest.mark.parametrize("make", [trainers.verl_fsdp, trainers.trl, trainers.prime_rl, trainers.tinker, trainers.roll])
def test_nothing_heavy_is_loaded(tmp_path, make):
    run = make(tmp_path)
    write(run / "rollouts", {"20.jsonl": json.dumps({"input": "a", "output": "b", "step": 20})})
    script = (
        "import sys, json\n"
        "from opd_diag.cli import app\n"
        "try: app(['inspect', sys.argv[1]])\n"
        "except SystemExit as done: assert done.code in (0, None), done.code\n"
        f"print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script, run], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_recorded_folder_that_cannot_be_read_is_said_and_no_error(tmp_path, monkeypatch):
    from opd_diag.errors import RolloutsError

    def refusing(folder):
        raise RolloutsError(f"{folder} cannot be read: Permission denied.")

    monkeypatch.setattr("opd_diag.cli.inspecting.find_recorded", refusing)
    assert inspected(trainer_run(tmp_path))[-1] == f"recorded: {tmp_path} cannot be read: Permission denied."
