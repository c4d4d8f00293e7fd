"""What is known, said and refused before a model is loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run as tiny

from opd_diag.errors import (
    CheckpointError,
    InputError,
    PromptsError,
    RolloutsError,
    RunFolderError,
    TokenizerMismatchError,
)
from opd_diag.records.rollout import Provenance, Rollout, save_rollouts
from opd_diag.records.settings import Settings, settings_from
from opd_diag.replay import make_plan, plan_models
from opd_diag.runs import read_manifest


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """Planning never loads a model."""

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)


def planned(run, **options):
    manifest = read_manifest(run.run_dir)
    return make_plan(run.run_dir, settings_from(options, manifest.settings, manifest.path), manifest)


def refused(run, error, **options):
    with pytest.raises(error) as caught:
        planned(run, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_plan_of_the_tiny_run(tiny_run):
    plan = planned(tiny_run)
    assert [c.label for c in plan.checkpoints] == ["step 0", "step 10", "step 20", "step 30"]
    assert plan.step_zero_known
    assert plan.first.path.resolve() == tiny_run.student
    assert plan.run == "run"
    assert (plan.teacher.label, plan.teacher.step) == ("teacher", None)
    assert plan.teacher.path.resolve() == tiny_run.teacher
    assert [p.index for p in plan.prompts] == list(range(8))
    assert [p.prompt.answer for p in plan.prompts][:3] == ["0", "2", "4"]
    assert (plan.blocked, plan.recorded, plan.notes) == ((), {}, ())


def test_description_says_what_it_costs(tiny_run):
    lines = planned(tiny_run, temperature=0.7, top_p=0.9, seed=5).description()
    assert [line.split("  ")[0] for line in lines] == ["run", "teacher", "step 0", "prompts", "to sample", "to score"]
    facts = dict(zip(("run", "teacher", "zero", "prompts", "sample", "score"), lines, strict=True))
    assert f"{tiny_run.run_dir} (4 checkpoints: step 0, step 10, step 20, step 30)" in facts["run"]
    assert facts["teacher"].endswith(str(tiny_run.teacher))
    assert facts["zero"].endswith(str(tiny_run.student))
    assert "8 × 2 rollouts of at most 10 tokens, temperature 0.7, top-p 0.9, seed 5" in facts["prompts"]
    assert "5 models × 16 responses (at most 800 tokens)" in facts["sample"]
    assert "11 sets of states (on-policy, start, teacher)" in facts["score"]  # the first checkpoint's own is the start


def test_description_without_step_zero(own_run):
    tiny.write_manifest(own_run, student="")
    plan = planned(own_run)
    assert not plan.step_zero_known
    assert [c.label for c in plan.checkpoints] == ["step 10", "step 20", "step 30"]
    assert plan.description()[2] == "step 0       unknown (name it with --student)"


def test_the_first_checkpoints_repeated_sets_cost_nothing(tiny_run):
    lines = planned(tiny_run, states="on-policy,start,teacher,back").description()
    assert "14 sets of states (on-policy, start, teacher, back)" in lines[-1]
    assert "8 sets of states (teacher, back)" in planned(tiny_run, states="teacher,back").description()[-1]


def test_a_student_of_another_shape_is_no_step_zero(own_run):
    tiny.save(tiny.model(seed=3, width=64), own_run.student, tiny.byte_tokenizer())
    message = refused(own_run, InputError)
    assert "cannot be what step 10 was trained from: hidden_size 64 against 32" in message
    assert "--student" in message


def test_a_student_with_another_tokenizer_is_no_step_zero(own_run):
    tokenizer = json.loads((own_run.student / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["0"], vocabulary["+"] = vocabulary["+"], vocabulary["0"]
    (own_run.student / "tokenizer.json").write_text(json.dumps(tokenizer))
    message = refused(own_run, TokenizerMismatchError)
    assert message.startswith("Student of step 0 and run read 2 of the ids that occur differently")
    assert "10 is '0' for the student of step 0, '+' for the run" in message
    assert "--student" in message
    assert planned(own_run, student=str(own_run.checkpoint(10)), checkpoints="20,30").first.step == 0


def test_only_the_checkpoints_asked_for(tiny_run):
    assert [c.step for c in planned(tiny_run, checkpoints="30,10").checkpoints] == [0, 10, 30]
    assert [c.step for c in planned(tiny_run, checkpoints=["step 20"]).checkpoints] == [0, 20]
    message = refused(tiny_run, InputError, checkpoints="10,40")
    assert "--checkpoints names 40" in message
    assert "10, 20, 30" in message


def test_checkpoint_zero_in_the_run_is_step_zero(own_run):
    shutil.copytree(own_run.student, own_run.checkpoint(0))
    tiny.write_manifest(own_run, student="")
    plan = planned(own_run)
    assert plan.step_zero_known
    assert plan.first.path == own_run.checkpoint(0)
    named = planned(own_run, student=str(own_run.checkpoint(0)))
    assert [c.label for c in named.checkpoints] == ["step 0", "step 10", "step 20", "step 30"]
    message = refused(own_run, CheckpointError, student=str(own_run.student))
    assert "Step 0 stands twice" in message


def test_no_teacher(own_run):
    tiny.write_manifest(own_run, teacher="")
    message = refused(own_run, InputError)
    assert message.startswith("No teacher.")
    assert "--teacher" in message
    assert planned(own_run, teacher=str(own_run.teacher)).teacher.path == own_run.teacher


def test_teacher_that_is_not_there(own_run):
    message = refused(own_run, InputError, teacher=str(own_run.root / "nobody"))
    assert str(own_run.root / "nobody") in message
    assert "--teacher" in message
    tiny.truncate(own_run.teacher)
    message = refused(own_run, InputError)
    assert "teacher cannot be loaded" in message
    assert "truncated" in message


def test_teacher_without_weights(own_run):
    (own_run.teacher / "model.safetensors").unlink()
    message = refused(own_run, InputError)
    assert "The teacher cannot be loaded: It has config.json but no weights." in message


def test_student_that_cannot_be_loaded(own_run):
    tiny.truncate(own_run.student)
    message = refused(own_run, CheckpointError)
    assert "student (step 0) cannot be loaded" in message
    message = refused(own_run, CheckpointError, student=str(own_run.root / "nobody"))
    assert "--student" in message


def test_no_prompts(own_run):
    tiny.write_manifest(own_run, prompts="")
    message = refused(own_run, InputError)
    assert message.startswith("No prompts.")
    assert "--prompts" in message


def test_prompts_that_are_not_there(own_run):
    own_run.prompts.unlink()
    assert "prompts.jsonl does not exist" in refused(own_run, PromptsError)


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_empty_prompts(own_run, text):
    own_run.prompts.write_text(text)
    assert "prompts.jsonl holds no prompt" in refused(own_run, PromptsError)


def test_a_broken_line_is_named(own_run):
    lines = own_run.prompts.read_text().splitlines()
    lines[2] = lines[2][:-4]
    own_run.prompts.write_text("\n".join(lines))
    assert "prompts.jsonl, line 3: not JSON" in refused(own_run, PromptsError)


def test_prompts_past_the_limit_are_left_out_and_noted(tiny_run):
    plan = planned(tiny_run, max_prompts=3)
    assert [p.prompt.id for p in plan.prompts] == ["p0", "p1", "p2"]
    assert plan.notes == ("The first 3 of 8 prompts were used (--max-prompts).",)


def test_blocked_checkpoints_are_kept_aside(own_run):
    tiny.truncate(own_run.checkpoint(20))
    plan = planned(own_run)
    assert [c.step for c in plan.checkpoints] == [0, 10, 30]
    assert [c.step for c in plan.blocked] == [20]
    assert "truncated" in plan.blocked[0].blocker


def test_all_blocked(own_run):
    for step in tiny.STEPS:
        tiny.truncate(own_run.checkpoint(step))
    message = refused(own_run, RunFolderError)
    assert "None of the 3 checkpoints" in message
    for step in tiny.STEPS:
        assert f"step {step}: model.safetensors is truncated" in message


def recorded(run, label="step 10", prompt=0, **options):
    ids = planned(run).prompts[prompt].ids
    source = Provenance("recorded", label, "", None, 1.0, 1.0, None)
    return Rollout(prompt, 0, f"p{prompt}", None, ids, ids, (5, 6, 257), "stop", source, **options)


def test_recorded_rollouts_stand_in_for_sampling(tiny_run, tmp_path):
    rollouts = [recorded(tiny_run, label, p) for label in ("step 10", "step 30") for p in (0, 1, 4)]
    save_rollouts(tmp_path / "rollouts.jsonl", rollouts)
    plan = planned(tiny_run, rollouts=str(tmp_path / "rollouts.jsonl"), prompts=str(tmp_path / "not read"))
    assert set(plan.recorded) == {"step 10", "step 30"}
    assert plan.recorded["step 30"] == tuple(rollouts[3:])
    assert [p.index for p in plan.prompts] == [0, 1, 4]
    assert [p.ids for p in plan.prompts] == [r.prompt_ids for r in rollouts[:3]]
    assert "Prompts are the 3 of the recorded rollouts, at most --max-prompts 64." in plan.notes
    assert "3 models × 6 responses" in plan.description()[4]


def test_a_folder_of_recorded_rollouts(tiny_run, tmp_path):
    save_rollouts(tmp_path / "step-000010.jsonl", [recorded(tiny_run, "step 10")])
    save_rollouts(tmp_path / "start.jsonl", [recorded(tiny_run, "step 10")])
    save_rollouts(tmp_path / "step-000020.jsonl", [recorded(tiny_run, "step 20")])
    plan = planned(tiny_run, rollouts=str(tmp_path))
    assert {label: len(rollouts) for label, rollouts in plan.recorded.items()} == {"step 10": 1, "step 20": 1}


def test_recorded_rollouts_of_other_runs_are_refused(tiny_run, tmp_path):
    save_rollouts(tmp_path / "rollouts.jsonl", [recorded(tiny_run, "epoch 1")])
    message = refused(tiny_run, RolloutsError, rollouts=str(tmp_path / "rollouts.jsonl"))
    assert "written by epoch 1" in message
    assert "step 0, step 10, step 20, step 30" in message
    assert "--rollouts" in message


def test_recorded_rollouts_of_other_weights_are_refused(tiny_run, tmp_path):
    mine = recorded(tiny_run, "step 10")
    foreign = replace(mine, provenance=replace(mine.provenance, weights_key="of another run"))
    save_rollouts(tmp_path / "rollouts.jsonl", [foreign])
    message = refused(tiny_run, RolloutsError, rollouts=str(tmp_path / "rollouts.jsonl"))
    assert "rollouts of step 10" in message
    assert "written by other weights" in message
    assert "leave --rollouts out" in message


def test_two_prompts_under_one_number_are_refused(tiny_run, tmp_path):
    first, second = recorded(tiny_run, "step 10"), recorded(tiny_run, "step 20")
    other = replace(second, prompt_ids=(*second.prompt_ids, 5))
    save_rollouts(tmp_path / "rollouts.jsonl", [first, other])
    message = refused(tiny_run, RolloutsError, rollouts=str(tmp_path / "rollouts.jsonl"))
    assert "two different prompts numbered" in message


def test_recorded_rollouts_without_a_state_are_refused_before_any_work(tiny_run, tmp_path):
    filled = Rollout(0, 0, "p0", None, (1,), (1,), (2,), "stop", Provenance("recorded", "step 10", "", 10, 1, 1, None))
    silent = replace(filled, response_ids=(), provenance=replace(filled.provenance, weights="step 20"))
    save_rollouts(tmp_path / "rollouts.jsonl", [filled, replace(silent, rollout_index=1)])
    message = refused(tiny_run, RolloutsError, rollouts=str(tmp_path / "rollouts.jsonl"))
    assert message.startswith("The rollouts of step 20 in")
    assert message.endswith("hold no response token. Take them out to have new ones sampled.")
    save_rollouts(tmp_path / "rollouts.jsonl", [filled, replace(silent, provenance=filled.provenance, rollout_index=1)])
    assert set(planned(tiny_run, rollouts=str(tmp_path / "rollouts.jsonl")).recorded) == {"step 10"}


def test_recorded_rollouts_bring_what_the_teacher_sees(tiny_run, tmp_path):
    save_rollouts(tmp_path / "rollouts.jsonl", [recorded(tiny_run, "step 10")])
    options = {"rollouts": str(tmp_path / "rollouts.jsonl"), "teacher_system_prompt": "Be brief."}
    message = refused(tiny_run, InputError, **options)
    assert "--teacher-system-prompt" in message
    assert "--rollouts" in message


@pytest.mark.parametrize("device", ["meta", "cuda:x", "tpu"])
def test_a_device_that_is_not_there(tiny_run, device):
    assert f"Device '{device}' is not available" in refused(tiny_run, InputError, device=device)


def test_a_map_of_one_device_is_that_device(tiny_run):
    settings = planned(tiny_run, device_map='{"": "cpu"}').settings
    assert (settings.device, settings.device_map) == ("cpu", None)
    message = refused(tiny_run, InputError, device_map='{"model": "disk"}')
    assert message.startswith(
        "--device-map puts a part on the disk, where it would be read from the checkpoint's files"
    )


def test_a_teacher_in_shards_is_nowhere_else(tiny_run):
    assert planned(tiny_run, tensor_parallel=2, device_map='{"student": "cpu"}').settings.tensor_parallel == 2
    for device_map in ("auto", '{"teacher": "cpu"}'):
        assert refused(tiny_run, InputError, tensor_parallel=2, device_map=device_map) == (
            "--tensor-parallel and --device-map both say where the teacher is. Leave one out, or let the map name the "
            'student alone: {"student": "auto"}.'
        )
    assert refused(tiny_run, InputError, tensor_parallel=2, teacher="vllm=http://host:1") == (
        "--tensor-parallel loads the teacher here, found vllm=http://host:1, which its server has. Leave it out."
    )
    assert refused(tiny_run, InputError, tensor_parallel=2, sampler="vllm") == (
        "--sampler vllm loads whole models to sample them, and --tensor-parallel is for a teacher too large for that. "
        "Leave one of them out."
    )


def test_studies_of_models_take_no_shards(tiny_run):
    with pytest.raises(InputError) as raised:
        plan_models(Settings(student="s", teacher="t", tensor_parallel=2))
    assert str(raised.value) == (
        "--tensor-parallel holds one teacher for one report: report, doctor and horizon take it. Leave it out, or use "
        "--device-map auto."
    )


def test_no_recorded_rollouts(tiny_run, tmp_path):
    message = refused(tiny_run, RolloutsError, rollouts=str(tmp_path))
    assert message.startswith(f"No rollouts in {tmp_path}. Known are opd-diag rollouts/*.jsonl; TRL completions/*.par")
    assert message.endswith("Name their file or folder with --rollouts.")
    assert "absent.jsonl does not exist" in refused(tiny_run, RolloutsError, rollouts=str(tmp_path / "absent.jsonl"))
    (tmp_path / "broken.jsonl").write_text('{"prompt_index": 0}\n')
    assert "broken.jsonl, line 1" in refused(tiny_run, RolloutsError, rollouts=str(tmp_path / "broken.jsonl"))


def test_a_rollouts_file_that_cannot_be_read(tiny_run, tmp_path, monkeypatch):
    file = tmp_path / "x.jsonl"
    file.write_text("")
    opened = Path.open

    def denied(path, *args, **kwargs):
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)
    assert refused(tiny_run, RolloutsError, rollouts=str(file)) == (
        f"{file} cannot be read: Permission denied. Check it and its permissions."
    )


def test_no_tokenizer_anywhere(own_run):
    for folder in (own_run.student, own_run.teacher, *map(own_run.checkpoint, tiny.STEPS)):
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (folder / name).unlink()
    message = refused(own_run, InputError)
    assert "No tokenizer" in message
    assert "--tokenizer" in message


def test_messages_need_a_chat_template(own_run):
    plain = tiny.byte_tokenizer(template=None)
    for folder in (own_run.student, *map(own_run.checkpoint, tiny.STEPS)):
        (folder / "chat_template.jinja").unlink()
        plain.save_pretrained(folder)
    message = refused(own_run, PromptsError)
    assert "Prompt p0" in message
    assert "no chat template" in message


def test_tokenizers_that_differ_elsewhere_are_noted(own_run):
    other = tiny.byte_tokenizer(special=("<pad>", "<end>", "<system>", "<user>", "<assistant>", "<tool>"))
    other.chat_template = "{{ messages[0].content }}"
    other.save_pretrained(own_run.teacher)
    notes = planned(own_run).notes
    assert "The student's tokenizer has 261 entries, the teacher's 262." in notes
    assert any("chat templates differ" in note for note in notes)


def test_ids_of_prompts_that_mean_something_else_are_refused(own_run):
    alphabet = json.loads((own_run.teacher / "tokenizer.json").read_text())
    vocabulary = alphabet["model"]["vocab"]
    vocabulary["+"], vocabulary["-"] = vocabulary["-"], vocabulary["+"]
    (own_run.teacher / "tokenizer.json").write_text(json.dumps(alphabet))
    message = refused(own_run, TokenizerMismatchError)
    assert "'+' for the student, '-' for the teacher" in message


def test_what_the_teacher_sees(tiny_run, tmp_path):
    plan = planned(tiny_run, teacher_system_prompt="Add.")
    assert all(p.teacher_ids != p.ids for p in plan.prompts)
    assert plan.tokenizer.text(plan.prompts[0].teacher_ids) == "<system>Add.<user>0+0<assistant>"
    assert plan.prompts_key() != planned(tiny_run).prompts_key()
    (tmp_path / "template.jinja").write_text("Q:{{ messages[-1].content }}")
    plan = planned(tiny_run, teacher_template=str(tmp_path / "template.jinja"))
    assert plan.tokenizer.text(plan.prompts[0].teacher_ids) == "Q:0+0"
    assert plan.prompts[0].ids == planned(tiny_run).prompts[0].ids
    message = refused(tiny_run, InputError, teacher_template=str(tmp_path / "absent.jinja"))
    assert "absent.jinja cannot be read" in message


def test_keyword_arguments_reach_the_chat_template(own_run):
    template = tiny.TEMPLATE + "{% if loud %}!{% endif %}"
    for step in tiny.STEPS:
        (own_run.checkpoint(step) / "chat_template.jinja").write_text(template)
    plan = planned(own_run, chat_template_kwargs={"loud": True})
    assert plan.tokenizer.text(plan.prompts[0].ids) == "<user>0+0<assistant>!"
    assert not plan.tokenizer.text(planned(own_run).prompts[0].ids).endswith("!")


def test_a_checkpoint_may_not_take_the_place_of_the_start(own_run, tmp_path):
    alone = tmp_path / "start"
    shutil.move(own_run.checkpoint(20), alone)
    (alone / "trainer_state.json").unlink()
    options = {"student": str(own_run.student), "teacher": str(own_run.teacher), "prompts": str(own_run.prompts)}
    with pytest.raises(RunFolderError) as caught:
        make_plan(alone, settings_from(options, {}, None), read_manifest(alone))
    assert "would be stored as start, which is taken" in str(caught.value)


def test_listed_steps_take_the_place_of_those_that_would_be_found(own_run):
    listed = f"3={own_run.checkpoint(10)},7={own_run.checkpoint(30)}"
    plan = planned(own_run, steps=listed)
    assert [(c.label, c.step) for c in plan.checkpoints] == [("step 0", 0), ("step 3", 3), ("step 7", 7)]


def test_a_trainer_that_counts_from_zero(own_run):
    assert [c.step for c in planned(own_run, step_base=0).checkpoints] == [0, 11, 21, 31]


def test_what_is_known_of_the_run_as_a_whole_is_noted(own_run):
    (own_run.run_dir / "checkpoint-5").mkdir()
    assert planned(own_run).notes == ("Nothing to load in: checkpoint-5 (empty).",)


def test_the_run_one_folder_below_is_planned(own_run, tmp_path):
    manifest = read_manifest(own_run.run_dir)
    (own_run.run_dir / "opd-diag.toml").unlink()
    plan = make_plan(own_run.root, settings_from({}, manifest.settings, manifest.path), replace(manifest, path=None))
    assert [c.step for c in plan.checkpoints] == [0, 10, 20, 30]
    assert f"The run is in {own_run.run_dir}." in plan.notes


def test_the_code_of_what_blocks_all_is_the_codes_of_the_error(own_run):
    for step in (10, 20, 30):
        tiny.truncate(own_run.checkpoint(step))
    with pytest.raises(RunFolderError, match="None of the 3 checkpoints") as caught:
        planned(own_run)
    assert caught.value.code == "INCOMPLETE_WEIGHTS"


def test_the_missing_tokenizer_has_its_code(own_run):
    for folder in (*own_run.run_dir.glob("checkpoint-*"), own_run.student, own_run.teacher):
        for file in folder.glob("tokenizer*"):
            file.unlink()
    with pytest.raises(InputError, match=r"^No tokenizer: ") as caught:
        planned(own_run)
    assert caught.value.code == "TOKENIZER_MISSING"
