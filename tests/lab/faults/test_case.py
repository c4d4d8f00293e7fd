"""Cases: all that a report needs in one folder, and rollouts that came with the run."""

from __future__ import annotations

import torch

from lab.faults.conftest import DATA, changed, contents, everything
from opd_diag.lab.faults.case import change_weights, copied_case
from opd_diag.lab.models import load_model
from opd_diag.runs import read_manifest


def test_a_case_is_the_run_with_other_prompts(case):
    settings = read_manifest(case.run_dir).settings
    assert [folder.name for folder in case.models] == [
        "student", "checkpoint-20", "checkpoint-40", "checkpoint-80", "checkpoint-160", "teacher",
    ]  # fmt: skip
    assert {name: str(settings[name].split("run/../")[1]) for name in ("student", "teacher", "prompts")} == {
        "student": "student",
        "teacher": "teacher",
        "prompts": "prompts.jsonl",
    }
    assert "rollouts" not in settings
    assert len(case.prompts.read_text().splitlines()) == 4
    for ours, theirs in (
        (case.student, "student"),
        (case.teacher, "teachers/new"),
        (case.checkpoints[0], "new/checkpoint-20"),
    ):
        assert (ours / "model.safetensors").read_bytes() == (DATA / theirs / "model.safetensors").read_bytes()


def test_all_prompts_are_the_default(tmp_path):
    assert copied_case(DATA / "new", tmp_path).prompts.read_bytes() == (DATA / "prompts.jsonl").read_bytes()


def test_a_case_can_be_copied_again(case, tmp_path):
    again = copied_case(case.run_dir, tmp_path / "again")
    assert contents(again) == contents(case)


def test_recorded_rollouts_say_that_the_trainer_wrote_them(recorded):
    files = everything(recorded)
    assert [*files] == ["step-000000", "step-000020", "teacher"]
    sources = {r.provenance for rollouts in files.values() for r in rollouts}
    assert {(s.origin, s.seed) for s in sources} == {("recorded", None)}
    assert {s.weights for s in sources} == {"step 0", "step 20", "teacher"}
    assert read_manifest(recorded.run_dir).settings["rollouts"].endswith("run/../rollouts")


def test_writers_are_found(recorded):
    writers = {recorded.writer(r) for rollouts in everything(recorded).values() for r in rollouts}
    assert writers == {recorded.student, recorded.run_dir / "checkpoint-20", recorded.teacher}


def test_changed_weights_are_loaded(case):
    before = contents(case)
    change_weights(case.teacher, lambda weights: {name: w * 2 for name, w in weights.items()})
    assert changed(case, before) == {"teacher/model.safetensors"}
    one, other = (load_model(folder).get_input_embeddings().weight for folder in (case.teacher, DATA / "teachers/new"))
    assert torch.equal(one, 2 * other)
