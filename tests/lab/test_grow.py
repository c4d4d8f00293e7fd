"""A miniature of everything: it grows, it loads, it repeats."""

import json
import tomllib

import pytest
import torch

from opd_diag.errors import MissingExtra
from opd_diag.lab import distillation
from opd_diag.lab.distillation import Distillation, distil, write_manifest
from opd_diag.lab.grow import Plan, grow
from opd_diag.lab.models import Shape, load_model
from opd_diag.lab.tokenizer import load_tokenizer

# TRL 1.16 still says gradient where transformers 5.23 says activation checkpointing (trl/models/utils.py, its config).
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]

MINIATURE = Plan(
    student_shape=Shape(1, 16, 16, heads=2, head_width=16),
    teacher_shape=Shape(1, 24, 24, heads=2, head_width=16),
    student_steps=3,
    teacher_steps=3,
    skill_steps=2,
    distillation=Distillation(save_at=(2, 4), learning_rate=1e-2, batch_size=4),
    held_out_per_operation=2,
)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    out = tmp_path_factory.mktemp("grown")
    said = []
    grow(MINIATURE, out, said.append)
    assert said
    return out


@pytest.mark.parametrize("name", ["new", "same", "other"])
def test_run_can_be_replayed_from_its_manifest(grown, name):
    run = grown / name
    manifest = tomllib.loads((run / "opd-diag.toml").read_text())
    student, teacher = load_model(run / manifest["student"]), load_model(run / manifest["teacher"])
    assert student.config.hidden_size == 16
    assert teacher.config.hidden_size == 24
    assert len((run / manifest["prompts"]).read_text().splitlines()) == 6
    assert manifest["sampling"] == {"rollouts_per_prompt": 2, "max_prompts": 64, "max_new_tokens": 48}
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_checkpoints_differ_from_step_zero_and_from_each_other(grown):
    weights = [
        load_model(folder).get_input_embeddings().weight
        for folder in (grown / "student", grown / "new/checkpoint-2", grown / "new/checkpoint-4")
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_checkpoint_keeps_the_log_without_stopwatch_and_no_pickle(grown):
    folder = grown / "same" / "checkpoint-4"
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    assert not any("step_time" in entry for entry in state["log_history"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
    ]


def test_page_names_every_model_and_the_command(grown):
    page = (grown / "README.md").read_text()
    assert "python -m opd_diag.lab.grow --out data --seed 0" in page
    for label in ("student (step 0)", "teacher other", "run new, step 2", "run same, step 4"):
        assert f"| {label} |" in page


def test_distillation_repeats_exactly(grown, tmp_path):
    again = [tmp_path / "first", tmp_path / "second"]
    questions = ["Today Anna has 3 figs at the farm and buys 4 more. How many figs does Anna have?"] * 4
    for out in again:
        distil(grown / "student", grown / "teachers/new", questions, Distillation(save_at=(2,), batch_size=2), out)
    contents = [(out / "checkpoint-2" / "model.safetensors").read_bytes() for out in again]
    assert contents[0] == contents[1]


def test_manifest_paths_are_as_given(tmp_path):
    write_manifest(tmp_path, student="../s", teacher="../t", prompts="../p.jsonl")
    manifest = tomllib.loads((tmp_path / "opd-diag.toml").read_text())
    assert (manifest["student"], manifest["teacher"], manifest["prompts"]) == ("../s", "../t", "../p.jsonl")


def test_missing_trl_names_the_extra(monkeypatch, tmp_path):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(distillation.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"opd-diag\[lab\]"):
        distil(tmp_path, tmp_path, [], Distillation(), tmp_path)


def test_pad_and_stop_are_known_to_the_models(grown):
    tokenizer = load_tokenizer(grown / "teachers/other")
    model = load_model(grown / "other/checkpoint-4")
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id
