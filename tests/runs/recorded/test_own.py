"""Our own rollouts are read like those of a trainer, those of the teacher left out."""

from dataclasses import replace

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import Provenance, Rollout, save_rollouts
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import refusal

ROLLOUT = Rollout(
    prompt_index=0,
    rollout_index=1,
    prompt_id="sub-000",
    group="subtract",
    prompt_ids=(1, 2),
    teacher_prompt_ids=(1, 2),
    response_ids=(3, 4),
    stop_reason="stop",
    provenance=Provenance("recorded", "step 40", "", 40, 0.75, float("nan"), None),
    generated=(True, False),
    sampled_logprobs=(-0.5, float("nan")),
    answer="4",
    reward=0.5,
    prompt_text="<user>2 + 2 =",
    response_text="4<end>",
)
TEACHERS = replace(ROLLOUT, provenance=replace(ROLLOUT.provenance, weights="teacher", step=None))


def test_a_file_of_rollouts(tmp_path):
    path = tmp_path / "rollouts" / "step-000040.jsonl"
    save_rollouts(path, [ROLLOUT, TEACHERS])
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness) == ("opd-diag", 40, "ids")
    notes = []
    (recorded,) = read_recorded(file, notes=notes)
    assert notes == [f"{path}: 1 of 2 records left out, as no step of a student is known of them."]
    assert recorded == Recorded(
        place=f"{path}, rollout sub-000/1",
        step=40,
        updates=40,
        exactness="ids",
        prompt="<user>2 + 2 =",
        response="4<end>",
        prompt_ids=(1, 2),
        response_ids=(3, 4),
        generated=(True, False),
        sampled_logprobs=recorded.sampled_logprobs,
        stop_reason="stop",
        temperature=0.75,
        reward=0.5,
        answer="4",
        group="subtract",
        prompt_name="sub-000",
    )
    assert recorded.sampled_logprobs == pytest.approx((-0.5, float("nan")), nan_ok=True)


def test_what_a_report_sampled_is_not_found(tmp_path):
    save_rollouts(tmp_path / "opd-diag" / "rollouts" / "step-000040.jsonl", [ROLLOUT])
    (tmp_path / "opd-diag" / ".opd-diag.json").write_text("{}")
    assert find_recorded(tmp_path) == []
    assert len(read_recorded(tmp_path / "opd-diag" / "rollouts" / "step-000040.jsonl")) == 1


def test_a_file_of_the_teachers_alone_is_refused(tmp_path):
    path = tmp_path / "step-000040.jsonl"
    save_rollouts(path, [TEACHERS])
    assert refusal(path) == (
        "step-000040.jsonl holds no response that can be used. step-000040.jsonl: 1 of 1 records left out, as no step "
        "of a student is known of them. Leave the file out."
    )
