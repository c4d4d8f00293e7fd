"""What a trainer recorded, from its files to the plan of a report: which of it is scored by whom, and what is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import tiny_run as tiny

from opd_diag.errors import InputError, RolloutsError
from opd_diag.records.rollout import Provenance, Rollout, in_training, save_rollouts
from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan
from opd_diag.runs import read_manifest

ROOT = Path(__file__).parents[2]
TRL = ROOT / "tests" / "runs" / "recorded" / "trl"
STRIPPED = (
    " Of stripped text the prompt is that of --prompts which reads the same under the chat template, the tokens are "
    "those that the tokenizer gives it, which need not be those that were sampled, and how a response ended is not "
    "known."
)


def told(n, what, low, high, mean):
    return (
        f"{n} responses that the trainer recorded ({what}) are scored as near-on-policy, by the nearest checkpoint at "
        f"or before the weights that wrote them: {low} to {high} updates stale, {mean} on average. No verdict rests on "
        "them."
    )


def planned(run_dir, **options):
    manifest = read_manifest(run_dir)
    return make_plan(run_dir, settings_from(options, manifest.settings, manifest.path), manifest)


def refused(run, error=RolloutsError, **options):
    with pytest.raises(error) as caught:
        planned(run.run_dir, **options)
    return str(caught.value)


def verl(folder, step, *rows):
    """Write responses as verl does, with special tokens stripped; row: (prompt, response)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"input": p, "output": r, "gts": "0", "score": 1.0, "step": step} for p, r in rows]
    (folder / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def nemo(folder, step, *rows):
    """Write responses as NeMo-RL does, token by token; row: (prompt ids, response ids)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"token_ids": [[*p, *r]], "token_loss_mask": [[0] * len(p) + [1] * len(r)], "input_lengths": [len(p) + len(r)],
         "content": [["a", "b"]], "rewards": [1.0], "idx": i}
        for i, (p, r) in enumerate(rows)
    ]  # fmt: skip
    (folder / f"train_data_step{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def shown(plan):
    """Of each response: checkpoint, prompt, number, updates behind its weights, text."""
    return [
        (label, r.prompt_id, r.rollout_index, r.provenance.step, r.response_text)
        for label, rollouts in plan.near.items()
        for r in rollouts
    ]


def test_what_trl_recorded_beside_the_bundled_checkpoints():
    plan = planned(ROOT / "data" / "new", rollouts=str(TRL / "distillation"), max_prompts=4)
    assert list(plan.near) == ["step 0"], "it was recorded at updates 0 and 1, the next checkpoint is 20"
    near = plan.near["step 0"]
    ids = ["sub-000", "add-000", "add-001", "mul-000"]
    assert [(r.prompt_id, r.rollout_index, r.provenance.step) for r in near] == [(i, n, n) for i in ids for n in (0, 1)]
    assert [p.prompt.id for p in plan.prompts] == ids, "prompts and sampling are as without"
    assert plan.prompts[0].ids == near[0].prompt_ids
    assert near[3].response_text == "We can calculate: 2 + 2 = 4. So the answer is 4 cards."
    assert near[3].is_correct
    assert {r.exactness for r in near} == {"text-stripped"}
    assert plan.settings.states == ("on-policy", "start", "teacher", "near-on-policy")
    assert plan.notes[0] == told(8, "trl; exactness: 8 text-stripped", 0, 1, "0.5") + STRIPPED


def test_each_checkpoint_gets_what_was_written_after_it(tiny_run, tmp_path):
    for step in (3, 11, 12, 21, 40):  # with 2, 10, 11, 20 and 39 updates
        verl(tmp_path, step, ("0+0", f"at {step}"), ("1+1?", f"at {step}"))
    plan = planned(tiny_run.run_dir, rollouts=str(tmp_path))
    assert shown(plan) == [
        ("step 0", "p0", 0, 2, "at 3"),
        ("step 0", "p1", 0, 2, "at 3"),
        ("step 10", "p0", 0, 10, "at 11"),
        ("step 10", "p0", 1, 11, "at 12"),
        ("step 10", "p1", 0, 10, "at 11"),
        ("step 10", "p1", 1, 11, "at 12"),
        ("step 20", "p0", 0, 20, "at 21"),
        ("step 20", "p1", 0, 20, "at 21"),
        ("step 30", "p0", 0, 39, "at 40"),
        ("step 30", "p1", 0, 39, "at 40"),
    ]
    assert plan.notes[0] == told(10, "verl; exactness: 10 text-stripped", 0, 9, "2.4") + STRIPPED
    assert "14 sets" not in plan.description()[-1]
    assert "15 sets of states (on-policy, start, teacher, near-on-policy)" in plan.description()[-1]


def test_what_is_staler_or_earlier_is_left_out_and_said(tiny_run, tmp_path):
    for step in (3, 11, 12, 14):
        verl(tmp_path, step, ("0+0", f"at {step}"), ("none of them", "x"))
    plan = planned(tiny_run.run_dir, rollouts=str(tmp_path), max_staleness=1)
    assert [of[-1] for of in shown(plan)] == ["at 11", "at 12"]
    assert plan.notes[1:] == (
        "Of 4 recorded responses these were left out: 2 whose prompt is none of --prompts under the chat template.",
        "Files that were not read, as all they hold is left out: 2 staler than --max-staleness 1.",
    )
    tiny_only = planned(tiny_run.run_dir, rollouts=str(tmp_path), checkpoints="20", max_staleness=100)
    assert list(tiny_only.near) == ["step 0"]


def test_a_first_response_to_every_prompt_before_a_second(tiny_run, tmp_path):
    verl(tmp_path, 11, ("0+0", "a"), ("0+0", "b"), ("0+0", "c"), ("1+1?", "d"), ("2+2??", "e"))
    verl(tmp_path, 12, ("3+3", "stale"))
    plan = planned(tiny_run.run_dir, rollouts=str(tmp_path), max_prompts=2, rollouts_per_prompt=2)
    assert [(of[1], of[2], of[4]) for of in shown(plan)] == [
        ("p0", 0, "a"), ("p0", 1, "b"), ("p1", 0, "d"), ("p2", 0, "e"),
    ]  # fmt: skip
    assert plan.notes[1:3] == (
        "Of 5 recorded responses these were left out: 1 beyond --max-prompts times --rollouts-per-prompt for their "
        "checkpoint.",
        "Files that were not read, as all they hold is left out: 1 beyond --max-prompts times --rollouts-per-prompt "
        "for their checkpoint.",
    )


def test_ids_need_no_prompts_file_and_bring_prompts_to_sample_from(own_run, tmp_path):
    tiny.write_manifest(own_run, prompts="")
    nemo(tmp_path, 11, ((7, 8), (9, 257)), ((5, 6), (4,)), ((7, 8), (3, 2)))
    plan = planned(own_run.run_dir, rollouts=str(tmp_path))
    assert [(r.prompt_index, r.rollout_index, r.prompt_ids, r.response_ids) for r in plan.near["step 10"]] == [
        (0, 0, (7, 8), (9, 257)),
        (0, 1, (7, 8), (3, 2)),
        (1, 0, (5, 6), (4,)),
    ]
    assert [(p.index, p.ids, p.prompt.id) for p in plan.prompts] == [
        (0, (7, 8), "recorded 0"),
        (1, (5, 6), "recorded 1"),
    ]
    assert plan.notes == (
        told(3, "nemo-rl; exactness: 3 ids", 0, 0, "0"),
        "Prompts are 2 of the 2 of the recorded rollouts (--max-prompts).",
    )


def test_prompts_of_the_file_keep_their_numbers_and_others_follow(tiny_run, tmp_path):
    ids = planned(tiny_run.run_dir).prompts[3].ids
    nemo(tmp_path, 11, ((7, 8), (9,)), (ids, (9,)))
    plan = planned(tiny_run.run_dir, rollouts=str(tmp_path), max_prompts=2)
    assert [(r.prompt_index, r.prompt_id) for r in plan.near["step 10"]] == [(3, "p3"), (8, "recorded 8")]


def test_our_own_record_of_training_is_paired_too(tiny_run, tmp_path):
    source = Provenance("recorded", in_training(11), "", 11, 1.0, 1.0, None)
    save_rollouts(tmp_path / "step-000011.jsonl", [Rollout(0, 0, "x", None, (7,), (7,), (9, 257), "stop", source)])
    plan = planned(tiny_run.run_dir, rollouts=str(tmp_path))
    assert [(label, r.response_ids, r.provenance) for label, of in plan.near.items() for r in of] == [
        ("step 10", (9, 257), source)
    ]
    assert plan.recorded == {}
    assert plan.notes == (told(1, "opd-diag; exactness: 1 ids", 1, 1, "1"),)


def test_responses_of_a_checkpoints_very_weights_are_counted_those_that_are_not_scored_too(tiny_run, tmp_path):
    def written(prompt, step, response=(9, 257)):
        source = Provenance("recorded", in_training(step), "", step, 1.0, 1.0, None)
        return Rollout(prompt, 0, f"{prompt}", None, (prompt + 7,), (prompt + 7,), response, "stop", source)

    ten = [written(prompt, 10) for prompt in range(3)] + [written(3, 10, (10**6,))]
    save_rollouts(tmp_path / "step-000010.jsonl", ten)
    save_rollouts(tmp_path / "step-000011.jsonl", [written(prompt, 11) for prompt in range(2)])
    plan = planned(tiny_run.run_dir, rollouts=str(tmp_path), max_prompts=2, rollouts_per_prompt=1)
    assert [(label, len(of)) for label, of in plan.near.items()] == [("step 10", 2)]
    assert plan.fresh == {"step 10": 4}


def test_evaluations_are_left_out_beside_training(tiny_run, tmp_path):
    verl(tmp_path / "rollouts", 11, ("0+0", "a"))
    verl(tmp_path / "validation", 10, ("0+0", "b"))
    notes = planned(tiny_run.run_dir, rollouts=str(tmp_path)).notes
    assert notes[1] == (
        "1 files of recorded evaluations were left out beside those of training. Name their folder with --rollouts to "
        "score them instead."
    )
    assert [of[3:] for of in shown(planned(tiny_run.run_dir, rollouts=str(tmp_path / "validation")))] == [(10, "b")]


def test_a_file_that_is_not_whole_is_left_out_beside_others(tiny_run, tmp_path):
    verl(tmp_path, 11, ("0+0", "a"))
    (tmp_path / "12.jsonl").write_text('{"input": "0+0", "output": 3, "step": 12}\n')
    notes = planned(tiny_run.run_dir, rollouts=str(tmp_path)).notes
    assert notes[1].startswith(f"Left out: {tmp_path}/12.jsonl, line 1: ")


def test_none_can_be_used(tiny_run, own_run, tmp_path):
    verl(tmp_path, 11, ("none of them", "a"), ("0+0", ""))
    verl(tmp_path, 12, ("neither", "b"))
    assert refused(tiny_run, rollouts=str(tmp_path)) == (
        f"None of the 3 responses that a trainer recorded in {tmp_path} can be used: 2 whose prompt is none of "
        "--prompts under the chat template, 1 without a token of the student's. Name the prompts that training used "
        "with --prompts, and the chat template's options with --chat-template-kwargs."
    )
    tiny.write_manifest(own_run, prompts="")
    assert refused(own_run, rollouts=str(tmp_path / "12.jsonl")) == (
        f"None of the 1 responses that a trainer recorded in {tmp_path}/12.jsonl can be used: 1 whose prompts can only "
        "be rebuilt from a prompts file, and there is none. Name the prompts that training used with --prompts."
    )
    tiny.write_manifest(own_run, student="")
    assert refused(own_run, rollouts=str(verl(tmp_path / "early", 5, ("0+0", "a")))) == (
        f"None of the 1 files that a trainer recorded in {tmp_path}/early can be used: 1 written before the first "
        "checkpoint. Name the model that training started from with --student."
    )
    assert refused(tiny_run, rollouts=str(verl(tmp_path / "late", 99, ("0+0", "a")))) == (
        f"None of the 1 files that a trainer recorded in {tmp_path}/late can be used: 1 staler than --max-staleness 9. "
        "Raise --max-staleness, or give checkpoints nearer to these responses."
    )


class Runs:
    """What unpickles by a call."""

    def __reduce__(self):
        return print, ("it ran",)


def test_a_pickle_that_runs_code_is_refused_unless_allowed(tiny_run, tmp_path, capsys):
    folder = tmp_path / "dumped_data"
    folder.mkdir()
    (folder / "global_step_11_training_input.pkl").write_bytes(pickle.dumps(Runs()))
    message = refused(tiny_run, rollouts=str(folder))
    assert "--allow-pickle" in message
    assert capsys.readouterr().out == ""
    assert "--allow-pickle" not in refused(tiny_run, rollouts=str(folder), allow_pickle=True)
    assert capsys.readouterr().out == "it ran\n"


def test_the_set_needs_a_record_and_another_set(tiny_run, tmp_path):
    assert refused(tiny_run, InputError, states="start,near-on-policy") == (
        "State set near-on-policy needs responses that a trainer recorded, and --rollouts names none. Name their file "
        "or folder, or leave the set out of --states."
    )
    verl(tmp_path, 11, ("0+0", "a"))
    assert refused(tiny_run, InputError, states="near-on-policy", rollouts=str(tmp_path)) == (
        "State set near-on-policy is scored beside others: name one more in --states, as near-on-policy,start."
    )
    assert planned(tiny_run.run_dir, states="near-on-policy,start", rollouts=str(tmp_path)).settings.states == (
        "start",
        "near-on-policy",
    )


def test_a_record_in_the_run_folder_is_named_and_not_used(own_run):
    verl(own_run.run_dir / "rollouts", 11, ("0+0", "a"))
    plan = planned(own_run.run_dir)
    assert plan.near == {}
    assert plan.notes == (
        "The run folder holds 1 file of responses that the trainer recorded (verl). Responses were sampled anew; to "
        f"score the recorded ones too, add --rollouts {own_run.run_dir}.",
    )
    assert [of[0] for of in shown(planned(own_run.run_dir, rollouts=str(own_run.run_dir)))] == ["step 10"]
