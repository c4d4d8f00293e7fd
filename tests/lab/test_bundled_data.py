"""The runs that ship: small, safe, loadable, and with the outcome their page tells."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from opd_diag.lab.evaluation import accuracy_by_operation
from opd_diag.lab.models import load_model
from opd_diag.lab.prompts import ask, draw_held_out, draw_training_questions
from opd_diag.lab.tokenizer import load_tokenizer

DATA = Path(__file__).parents[2] / "data"
RUNS = ("new", "same", "other")
STEPS = (20, 40, 80, 160)
MODELS = ["student", *(f"teachers/{name}" for name in RUNS)]
MODELS += [f"{name}/checkpoint-{step}" for name in RUNS for step in STEPS]


def files():
    return [path for path in DATA.rglob("*") if path.is_file()]


def test_sizes_are_within_limits():
    assert sum(path.stat().st_size for path in DATA.rglob("*")) <= 5_000_000
    assert max(path.stat().st_size for path in files()) <= 1_000_000


def test_everybody_may_read_them():
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files())


def test_only_expected_kinds_of_file():
    assert {path.suffix for path in files()} <= {".json", ".jsonl", ".jinja", ".md", ".safetensors", ".toml"}


def test_nothing_names_a_machine():
    for path in files():
        if path.suffix != ".safetensors":
            assert not re.search(r"/(work|tmp|home|root|Users)/", path.read_text(encoding="utf-8")), path


def test_all_models_are_there_and_nothing_else():
    found = sorted(path.parent.relative_to(DATA).as_posix() for path in DATA.rglob("config.json"))
    assert found == sorted(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_model_loads_and_reads_the_shared_tokenizer(name):
    model, tokenizer = load_model(DATA / name), load_tokenizer(DATA / name)
    assert tokenizer.get_vocab() == load_tokenizer(DATA / "student").get_vocab()
    assert model.config.vocab_size == len(tokenizer)
    ids = tokenizer("Today Anna has 3 figs", return_tensors="pt")["input_ids"]
    assert torch.isfinite(model(input_ids=ids).logits).all()
    with safe_open(DATA / name / "model.safetensors", "pt") as weights:
        assert {str(weights.get_slice(key).get_dtype()) for key in weights.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.parametrize("name", RUNS)
def test_manifest_leads_to_student_teacher_and_prompts(name):
    manifest = tomllib.loads((DATA / name / "opd-diag.toml").read_text())
    assert (DATA / name / manifest["student"]).resolve() == DATA / "student"
    assert (DATA / name / manifest["teacher"]).resolve() == DATA / "teachers" / name
    assert (DATA / name / manifest["prompts"]).resolve() == DATA / "prompts.jsonl"


@pytest.mark.parametrize("name", RUNS)
def test_trainer_log_covers_the_run(name):
    state = json.loads((DATA / name / f"checkpoint-{STEPS[-1]}" / "trainer_state.json").read_text())
    assert state["global_step"] == STEPS[-1]
    losses = [entry["loss"] for entry in state["log_history"]]
    assert len(losses) == STEPS[-1] // 5
    assert all(loss == loss for loss in losses)


def test_prompts_are_the_held_out_ones_and_not_trained_on():
    records = [json.loads(line) for line in (DATA / "prompts.jsonl").read_text().splitlines()]
    questions = [record["prompt"][0]["content"] for record in records]
    assert questions == [problem.question for problem in draw_held_out(32, seed=0)]
    assert not set(questions) & set(draw_training_questions(32 * STEPS[-1], 0, frozenset(questions)))


def reverse_kl_at_step_zero(name):
    """Mean KL(student‖teacher) in nats over states that the initial student visits."""
    student, teacher = load_model(DATA / "student"), load_model(DATA / "teachers" / name)
    tokenizer = load_tokenizer(DATA / "student")
    asked = [ask(tokenizer, problem.question) for problem in draw_held_out(8, seed=0)]
    total, n = 0.0, 0
    torch.manual_seed(0)
    for prompt in asked:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            whole = student.generate(input_ids=ids, max_new_tokens=48, do_sample=True, top_k=0)
            logprobs = [
                model(input_ids=whole).logits.log_softmax(-1)[0, ids.shape[1] - 1 : -1] for model in (student, teacher)
            ]
        total += (logprobs[0].exp() * (logprobs[0] - logprobs[1])).sum().item()
        n += len(logprobs[0])
    return total / n


def test_teachers_stand_at_the_promised_distances():
    assert reverse_kl_at_step_zero("same") < 0.06
    assert 0.06 < reverse_kl_at_step_zero("new") < 0.5
    assert reverse_kl_at_step_zero("other") > 5


@pytest.fixture(scope="module")
def accuracies():
    problems = draw_held_out(32, seed=0)
    folders = ["student", *(f"{name}/checkpoint-{STEPS[-1]}" for name in RUNS)]
    return {
        folder: accuracy_by_operation(load_model(DATA / folder), load_tokenizer(DATA / folder), problems)
        for folder in folders
    }


def test_student_can_add_and_subtract_but_not_multiply(accuracies):
    assert accuracies["student"]["add"] > 0.85
    assert accuracies["student"]["subtract"] > 0.85
    assert accuracies["student"]["multiply"] < 0.25


def test_only_a_teacher_that_knows_more_teaches(accuracies):
    assert accuracies["new/checkpoint-160"]["multiply"] > 0.4
    assert accuracies["same/checkpoint-160"]["multiply"] < 0.25


@pytest.mark.parametrize("name", ["new", "same"])
def test_old_skills_survive(accuracies, name):
    assert accuracies[f"{name}/checkpoint-160"]["add"] > 0.85
    assert accuracies[f"{name}/checkpoint-160"]["subtract"] > 0.85
