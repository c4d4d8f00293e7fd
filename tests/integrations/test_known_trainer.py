"""What is read off a trainer: sampling that is plain or not, the loss, the teacher's name, prompts of any data set."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from opd_diag.errors import InputError
from opd_diag.integrations.known_trainer import KnownTrainer


def teacher(name="org/teacher", commit=None):
    return SimpleNamespace(config=SimpleNamespace(name_or_path=name, _commit_hash=commit))


def trainer(**known):
    """Give what ``DistillationTrainer`` has of attributes."""
    plain = {
        "args": SimpleNamespace(generation_kwargs=None),
        "accelerator": SimpleNamespace(unwrap_model=lambda model: model),
        "processing_class": SimpleNamespace(eos_token_id=2),
        "eos_token_ids": [2, 7],
        "teacher_model": teacher(),
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "max_completion_length": 512,
        "chat_template_kwargs": {},
        "beta": 1.0,
        "train_dataset": [{"prompt": "2 + 2 ="}],
    }
    return SimpleNamespace(**plain | known)


class TestSampling:
    def test_plain(self):
        known = KnownTrainer(trainer())
        assert (known.temperature, known.top_p, known.max_new_tokens, known.stop_ids) == (1.0, 1.0, 512, (2, 7))

    @pytest.mark.parametrize(
        "rule",
        [
            {"top_k": 20},
            {"min_p": 0.05},
            {"repetition_penalty": 1.1},
            {"args": SimpleNamespace(generation_kwargs={"typical_p": 0.9})},
        ],
    )
    def test_a_further_rule_makes_it_no_plain_sample(self, rule):
        assert math.isnan(KnownTrainer(trainer(**rule)).top_p)

    def test_a_temperature_that_overrides_the_trainers_is_not_the_trainers(self):
        known = KnownTrainer(trainer(args=SimpleNamespace(generation_kwargs={"temperature": 0.5})))
        assert math.isnan(known.temperature)
        assert known.settings(None)["temperature"] is None

    @pytest.mark.parametrize("rule", [{"top_k": None}, {"top_k": -1}, {"min_p": 0.0}, {"repetition_penalty": None}])
    def test_a_rule_that_changes_nothing(self, rule):
        assert KnownTrainer(trainer(**rule)).top_p == 1.0

    def test_of_generation_settings_alone(self):
        settings = SimpleNamespace(temperature=0.9, top_p=0.95, eos_token_id=5, max_new_tokens=64)
        known = KnownTrainer(
            SimpleNamespace(args=SimpleNamespace(), processing_class=SimpleNamespace(eos_token_id=None))
        )
        assert math.isnan(known.temperature)
        known.generation = settings
        assert (known.temperature, known.top_p, known.max_new_tokens, known.stop_ids) == (0.9, 0.95, 64, (5,))

    def test_a_processor_has_its_tokenizer_inside(self):
        inner = SimpleNamespace(eos_token_id=4)
        made = trainer(processing_class=SimpleNamespace(tokenizer=inner), eos_token_ids=[])
        assert KnownTrainer(made).stop_ids == (4,)


class TestSettings:
    def test_of_a_plain_distillation(self):
        found = KnownTrainer(trainer()).settings(None)
        assert {name: value for name, value in found.items() if value is not None} == {
            "teacher": "org/teacher",
            "beta": 1.0,
            "temperature": 1.0,
            "top_p": 1.0,
            "max_new_tokens": 256,
        }

    def test_a_heated_loss_is_scored_heated(self):
        found = KnownTrainer(trainer(temperature=0.8, chat_template_kwargs={"enable_thinking": False})).settings(None)
        assert (found["student_temperature"], found["teacher_temperature"], found["temperature"]) == (0.8, 0.8, 0.8)
        assert found["chat_template_kwargs"] == {"enable_thinking": False}

    @pytest.mark.parametrize(
        "other",
        [
            {"lmbda": 1.0},
            {"args": SimpleNamespace(generation_kwargs=None, loss_top_k=8)},
            {"teacher_model": None},
            {"temperature": None},
        ],
    )
    def test_a_loss_that_is_no_mean_divergence_is_not_named(self, other):
        assert "beta" not in KnownTrainer(trainer(**other)).settings("org/teacher")

    def test_a_teacher_of_the_hub_keeps_its_commit(self):
        known = KnownTrainer(trainer(teacher_model=teacher(commit="abc123")))
        assert known.settings(None)["teacher"] == "org/teacher@abc123"
        assert known.settings("org/other")["teacher"] == "org/other"

    @pytest.mark.parametrize(
        "said", [{"teacher_model_revision": "v2"}, {"teacher_model_init_kwargs": {"revision": "v2", "dtype": "auto"}}]
    )
    def test_the_revision_that_the_arguments_name(self, said):
        known = KnownTrainer(trainer(args=SimpleNamespace(generation_kwargs=None, **said)))
        assert known.settings(None)["teacher"] == "org/teacher@v2"
        assert known.settings("org/other")["teacher"] == "org/other"

    def test_a_teacher_with_an_adapter_is_not_its_base(self):
        adapted = SimpleNamespace(config=SimpleNamespace(name_or_path="org/base"), peft_config={})
        known = KnownTrainer(trainer(teacher_model=adapted))
        with pytest.raises(InputError, match="The teacher does not say where it was loaded from"):
            known.settings(None)
        assert known.settings("org/adapter")["teacher"] == "org/adapter"

    def test_a_folder_has_no_commit(self, tmp_path):
        known = KnownTrainer(trainer(teacher_model=teacher(str(tmp_path), commit="abc123")))
        assert known.settings(None)["teacher"] == str(tmp_path)
        assert known.settings(tmp_path)["teacher"] == str(tmp_path)

    def test_no_teacher(self):
        assert KnownTrainer(trainer(teacher_model=None)).settings(None)["teacher"] is None


def asked(content):
    return [{"role": "user", "content": content}]


class TestPrompts:
    @pytest.mark.parametrize(
        ("row", "record"),
        [
            ({"prompt": "a"}, {"prompt": "a"}),
            ({"prompt": "a", "answer": 4, "solution": "no"}, {"prompt": "a", "answer": 4}),
            ({"prompt": asked("a"), "answer": None}, {"prompt": asked("a")}),
            ({"messages": [*asked("a"), {"role": "assistant", "content": "b"}]}, {"prompt": asked("a")}),
            ({"messages": asked("a")}, {"prompt": asked("a")}),
            ({"prompt": "", "messages": asked("a")}, {"prompt": asked("a")}),
        ],
    )
    def test_of_a_row(self, row, record):
        assert KnownTrainer(trainer(train_dataset=[row])).prompts(5) == [record]

    @pytest.mark.parametrize(
        "row", [{}, {"prompt": None}, {"prompt": asked([{"type": "image"}])}, {"messages": []}, {"text": "a"}]
    )
    def test_rows_without_one_are_passed_over(self, row):
        assert KnownTrainer(trainer(train_dataset=[row, {"prompt": "a"}])).prompts(5) == [{"prompt": "a"}]
        with pytest.raises(InputError, match="No prompt of the training set can be written"):
            KnownTrainer(trainer(train_dataset=[row])).prompts(5)

    def test_are_drawn_from_all_of_the_data_set_and_the_same_ones_again(self):
        known = KnownTrainer(trainer(train_dataset=[{"prompt": str(i)} for i in range(1000)]))
        drawn = [int(record["prompt"]) for record in known.prompts(20)]
        assert len(set(drawn)) == 20
        assert max(drawn) > 500
        assert drawn == [int(record["prompt"]) for record in known.prompts(20)]

    def test_the_first_of_a_stream(self):
        class Stream:
            def __iter__(self):
                return ({"prompt": str(i)} for i in range(10**9))

        assert KnownTrainer(trainer(train_dataset=Stream())).prompts(2) == [{"prompt": "0"}, {"prompt": "1"}]

    def test_equal_prompts_are_one(self):
        rows = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}]
        assert KnownTrainer(trainer(train_dataset=rows)).prompts(3) == [{"prompt": "a"}, {"prompt": "b"}]

    def test_none_are_wanted(self):
        assert KnownTrainer(trainer(train_dataset=[])).prompts(0) == []
