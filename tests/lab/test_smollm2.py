"""The SmolLM2 command on a random Llama of six layers: nothing is downloaded."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from opd_diag.errors import InputError, MissingExtra
from opd_diag.lab import distillation, smollm2
from opd_diag.lab.distillation import Distillation
from opd_diag.lab.models import load_model, save_model
from opd_diag.lab.smollm2 import RECIPES, Recipe, draw_problems, grow_run, load_teacher, shortened, without_layers
from opd_diag.runs import find_checkpoints, read_manifest

from .tiny_llama import tiny_llama, tiny_tokenizer, write_gguf

# TRL 1.16 still says gradient where transformers 5.23 says activation checkpointing (trl/models/utils.py, its config).
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
]


class Gym:
    """Stands in for reasoning-gym, which needs a compiler: its n-th problem follows from seed + n, as there."""

    @staticmethod
    def create_dataset(task, size, seed):
        assert task == "gsm_symbolic"
        # every third question comes twice
        numbers = [seed + n - (n % 3 == 2) for n in range(size)]
        return [{"question": f"Tom has {n} eggs and eats one. How many?", "answer": str(n - 1)} for n in numbers]


@pytest.fixture(autouse=True, scope="module")
def gym():
    with pytest.MonkeyPatch.context() as patch:
        real = smollm2.import_extra
        patch.setattr(smollm2, "import_extra", lambda name, *a: Gym if name == "reasoning_gym" else real(name, *a))
        yield


SHORT = Recipe(lambda layer: layer % 3 == 2, Distillation(save_at=(2, 3), learning_rate=1e-2, batch_size=2))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    tokenizer, said = tiny_tokenizer(), []
    run = grow_run(
        "collapsing", tiny_llama(tokenizer), tokenizer, tmp_path_factory.mktemp("smol"), said.append, recipe=SHORT
    )
    assert said[0] == "collapsing: without layers [2, 5], 3 steps"
    assert said[-1] == "kept checkpoint-3"
    return run


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


IDS = [5, 40, 7, 99, 12, 80]


def test_student_gives_the_logits_of_a_model_made_by_hand():
    tokenizer = tiny_tokenizer()
    whole = tiny_llama(tokenizer)
    student = without_layers(whole, [1, 4])
    by_hand = tiny_llama(tokenizer, layers=4)
    weights = {}
    for name, value in whole.state_dict().items():
        parts = name.split(".")
        if parts[1] == "layers":
            if int(parts[2]) in (1, 4):
                continue
            parts[2] = str([0, 2, 3, 5].index(int(parts[2])))
        weights[".".join(parts)] = value
    by_hand.load_state_dict(weights)
    torch.testing.assert_close(logits(student, IDS), logits(by_hand, IDS), rtol=0, atol=0)
    assert (logits(student, IDS) - logits(whole, IDS)).abs().max() > 0.1


def test_student_counts_its_layers_anew_and_the_whole_model_keeps_its_own():
    whole = tiny_llama(tiny_tokenizer())
    student = without_layers(whole, [1, 4])
    assert student.config.num_hidden_layers == len(student.model.layers) == 4
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == [0, 1, 2, 3]
    assert whole.config.num_hidden_layers == len(whole.model.layers) == 6
    assert [layer.self_attn.layer_idx for layer in whole.model.layers] == [0, 1, 2, 3, 4, 5]


def test_student_generates_with_a_cache_as_without():
    student = without_layers(tiny_llama(tiny_tokenizer()), [0, 1, 2])
    ids = torch.tensor([IDS])
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids), "eos_token_id": None}
    assert torch.equal(
        student.generate(ids, use_cache=True, **options), student.generate(ids, use_cache=False, **options)
    )


@pytest.mark.parametrize("removed", [[6], [-1], [0, 1, 2, 3, 4, 5]])
def test_layers_that_cannot_be_removed_are_refused(removed):
    with pytest.raises(InputError, match="some of the layers 0 to 5"):
        without_layers(tiny_llama(tiny_tokenizer()), removed)


def test_recipes_remove_what_they_say():
    removed = {name: [i for i in range(30) if recipe.is_removed(i)] for name, recipe in RECIPES.items()}
    assert removed == {"collapsing": [2, 5, 8, 11, 14, 17, 20, 23, 26, 29], "mild": [10, 14, 18, 22]}
    assert [RECIPES[name].distillation.learning_rate for name in ("collapsing", "mild")] == [3e-4, 3e-5]
    assert RECIPES["collapsing"].distillation.save_at == (5, 10, 20, 40, 80)
    assert RECIPES["mild"].distillation.save_at == (10, 20, 30, 40)


def test_a_run_holds_all_that_a_report_needs(grown):
    manifest = read_manifest(grown)
    settings = manifest.settings
    assert (settings["rollouts_per_prompt"], settings["max_prompts"], settings["max_new_tokens"]) == (2, 24, 48)
    assert len(load_model(grown / "teacher").model.layers) == 6
    assert settings["teacher"] == str(grown / "teacher")
    assert settings["student"] == str(grown / "student")
    assert str(settings["prompts"]) == str(grown / "prompts.jsonl")
    assert [(c.step, c.blocker) for c in find_checkpoints(grown)] == [(2, None), (3, None)]


def test_step_zero_is_the_rounded_teacher_without_its_layers(grown):
    teacher, student = load_model(grown / "teacher"), load_model(grown / "student")
    torch.testing.assert_close(logits(student, IDS), logits(without_layers(teacher, [2, 5]), IDS), rtol=0, atol=0)


def test_checkpoints_load_in_bfloat16_and_have_learned(grown):
    before = load_model(grown / "student")
    for step in (2, 3):  # the first step of the warm-up moves nothing
        folder = grown / f"checkpoint-{step}"
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert model.dtype == torch.bfloat16
        assert len(model.model.layers) == 4
        after = load_model(folder)
        assert (logits(after, IDS) - logits(before, IDS)).abs().max() > 1e-2
        assert AutoTokenizer.from_pretrained(folder).chat_template
        assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == step
        before = after


def test_prompts_have_answers_and_are_not_trained_on(grown, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(smollm2, "distil", lambda student, teacher, questions, *rest: asked.extend(questions))
    tokenizer = tiny_tokenizer()
    grow_run("mild", tiny_llama(tokenizer, layers=24), tokenizer, tmp_path, lambda line: None)
    lines = [json.loads(line) for line in (tmp_path / "mild" / "prompts.jsonl").read_text().splitlines()]
    held_out = {line["prompt"][0]["content"] for line in lines}
    assert len(held_out) == len(lines) == 24
    assert all(line["answer"].strip() for line in lines)
    assert len(asked) == len(set(asked)) == 40 * 8
    assert not held_out & set(asked)
    assert (grown / "prompts.jsonl").read_text() == (tmp_path / "mild" / "prompts.jsonl").read_text()


def test_known_questions_are_not_drawn():
    known = frozenset(problem["question"] for problem in draw_problems(5, seed=3))
    again = [problem["question"] for problem in draw_problems(5, seed=3, known=known)]
    assert not known & set(again)
    assert len(set(again)) == 5


def test_the_real_problems_have_what_is_used(monkeypatch):
    gym = pytest.importorskip("reasoning_gym")
    monkeypatch.setattr(smollm2, "import_extra", lambda name, extra: gym)
    problems = draw_problems(4, seed=3)
    assert len({p["question"] for p in problems}) == 4
    assert all(math.isfinite(float(p["answer"].replace(",", ""))) for p in problems)
    assert draw_problems(4, seed=3) == problems


def test_a_recipe_ends_early_with_a_checkpoint_at_its_end():
    assert shortened(RECIPES["collapsing"], 40).distillation.save_at == (5, 10, 20, 40)
    assert shortened(RECIPES["collapsing"], 12).distillation.save_at == (5, 10, 12)
    assert shortened(RECIPES["mild"], None) is RECIPES["mild"]
    with pytest.raises(InputError, match="--steps"):
        shortened(RECIPES["mild"], 0)


def test_missing_gguf_names_the_extra(monkeypatch, tmp_path):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(distillation.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"gguf.*opd-diag\[smollm2\]"):
        load_teacher("", tmp_path / "model.gguf")


def test_missing_gguf_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.gguf"):
        load_teacher("", tmp_path / "absent.gguf")


def test_teacher_is_loaded_from_a_folder(tmp_path):
    tokenizer = tiny_tokenizer()
    save_model(tiny_llama(tokenizer), tokenizer, tmp_path / "whole")
    model, loaded = load_teacher(str(tmp_path / "whole"), None)
    assert model.dtype == torch.float32
    assert len(model.model.layers) == 6
    assert loaded.chat_template == tokenizer.chat_template


def test_teacher_is_rebuilt_from_a_gguf_file(tmp_path):
    tokenizer = tiny_tokenizer()
    whole = tiny_llama(tokenizer)
    write_gguf(whole, tokenizer, tmp_path / "whole.gguf")
    model, loaded = load_teacher("", tmp_path / "whole.gguf")
    torch.testing.assert_close(logits(model, IDS), logits(whole, IDS), rtol=0, atol=0)
    assert not hasattr(model.config, "quantization_config")
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded("Do.")["input_ids"] == tokenizer("Do.")["input_ids"]
    student = without_layers(model, [5])
    save_model(student, loaded, tmp_path / "student")
    assert len(load_model(tmp_path / "student").model.layers) == 5


def test_wrong_input_ends_in_one_sentence(monkeypatch, capsys, tmp_path):
    arguments = ["smollm2", "--run", "mild", "--out", str(tmp_path), "--gguf", str(tmp_path / "absent.gguf")]
    monkeypatch.setattr(sys, "argv", arguments)
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as ended:
            smollm2.main()
    finally:
        torch.set_num_threads(threads)
    assert ended.value.code == 2
    assert "Correct --gguf" in capsys.readouterr().err
