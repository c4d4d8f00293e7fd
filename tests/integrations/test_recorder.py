"""What is taken is what is written; files of a given-up training go; the manifest is one that reports read."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from opd_diag import load_rollouts
from opd_diag.errors import InputError, StoreError
from opd_diag.integrations import Recorder
from opd_diag.integrations.recorder import _toml
from opd_diag.runs import read_manifest
from opd_diag.runs.recorded import find_recorded, read_recorded


def recorder(folder, **known):
    return Recorder(folder, **{"stop_ids": (0, 9), "max_new_tokens": 3, "temperature": 1.0, "top_p": 1.0} | known)


class TestResponses:
    def test_one_file_for_the_weights_of_each_step(self, tmp_path):
        made = recorder(tmp_path)
        assert made.write() is None
        made.take(4, [1, 2], [5, 0])
        assert made.write() == tmp_path / "recorded" / "rollouts" / "step-000004.jsonl"
        made.take(4, [3], [6])
        made.write()
        made.take(5, [3], [7])
        made.write()
        assert [[r.response_ids for r in load_rollouts(f)] for f in sorted(made.rollouts_dir.iterdir())] == [
            [(5, 0), (6,)],
            [(7,)],
        ]

    def test_discovery_finds_them(self, tmp_path):
        made = recorder(tmp_path)
        made.take(12, [1], [2, 0])
        made.write()
        (file,) = find_recorded(tmp_path)
        assert (file.format, file.step, file.exactness) == ("opd-diag", 12, "ids")
        (response,) = read_recorded(file)
        assert (response.prompt_ids, response.response_ids, response.updates) == ((1,), (2, 0), 12)

    @pytest.mark.parametrize(
        ("response", "most", "reason"),
        [
            ([5, 0], 3, "stop"),
            ([5, 9], 3, "stop"),
            ([5, 5, 0], 3, "stop"),
            ([5, 5, 5], 3, "length"),
            ([5, 5], 3, "unknown"),
            ([5, 5, 5], None, "unknown"),
        ],
    )
    def test_why_a_response_ended(self, tmp_path, response, most, reason):
        made = recorder(tmp_path, max_new_tokens=most)
        made.take(0, [1], response)
        (rollout,) = load_rollouts(made.write())
        assert rollout.stop_reason == reason

    def test_prompts_are_told_apart_by_their_ids(self, tmp_path):
        made = recorder(tmp_path)
        for prompt in ([1, 2], [12], [1, 2]):
            made.take(0, prompt, [5])
        rollouts = load_rollouts(made.write())
        assert [(r.prompt_index, r.rollout_index) for r in rollouts] == [(0, 0), (1, 0), (0, 1)]
        assert rollouts[0].prompt_id == rollouts[2].prompt_id != rollouts[1].prompt_id
        made.take(1, [12], [5])
        (rollout,) = load_rollouts(made.write())
        assert (rollout.prompt_index, rollout.rollout_index, rollout.prompt_id) == (1, 0, rollouts[1].prompt_id)

    def test_everything_that_is_known_of_one(self, tmp_path):
        made = recorder(tmp_path, top_p=math.nan)
        made.take(3, [1], [5, 6], generated=[True, False], logprobs=[-0.5, math.nan], reward=0.25)
        (rollout,) = load_rollouts(made.write())
        assert rollout.generated == (True, False)
        assert rollout.sampled_logprobs[0] == -0.5
        assert math.isnan(rollout.sampled_logprobs[1])
        assert rollout.reward == 0.25
        assert rollout.provenance.temperature == 1.0
        assert math.isnan(rollout.provenance.top_p)
        assert not rollout.provenance.plain

    def test_no_token_is_no_response(self, tmp_path):
        made = recorder(tmp_path)
        made.take(0, [1], [])
        assert made.write() is None

    def test_a_folder_that_cannot_be_written_to(self, tmp_path):
        made = recorder(tmp_path)
        (tmp_path / "recorded").write_text("no folder")
        made.take(0, [1], [2])
        with pytest.raises(StoreError) as error:
            made.write()
        assert str(error.value) == (
            f"Cannot write {made.rollouts_dir / 'step-000000.jsonl'}: Not a directory. Make room there, or mend its "
            "permissions."
        )


class TestPadded:
    def test_padding_is_left_out(self, tmp_path):
        made = recorder(tmp_path)
        made.take_padded(
            7,
            {
                "prompt_ids": torch.tensor([[0, 0, 1], [1, 2, 3]]),
                "prompt_mask": torch.tensor([[0, 0, 1], [1, 1, 1]]),
                "completion_ids": torch.tensor([[5, 0, 0], [6, 7, 8]]),
                "completion_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
                "tool_mask": torch.tensor([[1, 1, 1], [1, 0, 1]]),
                "sampling_per_token_logps": torch.tensor([[-1.0, -2.0, 0.0], [-3.0, -4.0, -5.0]]),
                "advantages": torch.tensor([1.0, 2.0]),
            },
        )
        first, second = load_rollouts(made.write())
        assert (first.prompt_ids, first.response_ids) == ((1,), (5, 0))
        assert (first.generated, first.sampled_logprobs) == (None, (-1.0, -2.0))
        assert (second.prompt_ids, second.response_ids) == ((1, 2, 3), (6, 7, 8))
        assert (second.generated, second.sampled_logprobs) == ((True, False, True), (-3.0, -4.0, -5.0))

    def test_a_response_that_is_not_learned_from(self, tmp_path):
        made = recorder(tmp_path)
        one = torch.ones(1, 1, dtype=torch.long)
        batch = {"prompt_ids": one, "prompt_mask": one, "completion_ids": torch.tensor([[4, 5, 6]])}
        made.take_padded(0, batch | {"completion_mask": torch.zeros(1, 3, dtype=torch.long)})
        (rollout,) = load_rollouts(made.write())
        assert (rollout.response_ids, rollout.stop_reason) == ((4, 5, 6), "length")

    def test_padding_of_one_that_is_not_learned_from_begins_at_the_limit(self, tmp_path):
        made = recorder(tmp_path, max_new_tokens=2)
        one = torch.ones(1, 1, dtype=torch.long)
        batch = {"prompt_ids": one, "prompt_mask": one, "completion_ids": torch.tensor([[4, 5, 0, 0]])}
        made.take_padded(0, batch | {"completion_mask": torch.zeros(1, 4, dtype=torch.long)})
        (rollout,) = load_rollouts(made.write())
        assert (rollout.response_ids, rollout.stop_reason) == ((4, 5), "length")


class TestBegin:
    def test_what_a_given_up_training_wrote_goes(self, tmp_path):
        made = recorder(tmp_path)
        for step in (0, 9, 10, 11):
            made.take(step, [1], [2])
            made.write()
        (made.rollouts_dir / "notes.jsonl").write_text("the user's")
        made.begin(10)
        assert sorted(f.name for f in made.rollouts_dir.iterdir()) == [
            "notes.jsonl",
            "step-000000.jsonl",
            "step-000009.jsonl",
        ]

    def test_what_was_taken_of_an_update_that_broke_off_goes(self, tmp_path):
        made = recorder(tmp_path)
        made.take(0, [1], [5])
        made.begin(0)
        assert made.write() is None
        made.take(0, [1], [6])
        (rollout,) = load_rollouts(made.write())
        assert (rollout.response_ids, rollout.rollout_index) == ((6,), 0)

    def test_where_there_is_nothing(self, tmp_path):
        recorder(tmp_path / "new").begin(0)
        assert not (tmp_path / "new").exists()


class TestManifest:
    def test_is_read_as_it_was_meant(self, tmp_path):
        made = recorder(tmp_path)
        settings = {
            "student": made.folder / "student",
            "teacher": 'org/"odd"\\name\x7f\N{SNOWMAN}\N{GRINNING FACE}@main',
            "beta": 1,
            "tokenizer": None,
            "chat_template_kwargs": {"enable_thinking": False, "level": 2, "names": ["a", "b"]},
            "temperature": 0.7,
            "max_new_tokens": 256,
        }
        assert made.write_manifest(settings)
        assert read_manifest(tmp_path).settings == {
            "student": str(tmp_path / "recorded" / "student"),
            "teacher": settings["teacher"],
            "beta": 1,
            "chat_template_kwargs": settings["chat_template_kwargs"],
            "rollouts": str(tmp_path / "recorded" / "rollouts"),
            "temperature": 0.7,
            "max_new_tokens": 256,
        }
        assert 'student = "./recorded/student"' in (tmp_path / "opd-diag.toml").read_text()

    def test_a_model_in_a_folder_is_named_whole(self, tmp_path, monkeypatch):
        (tmp_path / "models" / "teacher").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        recorder(tmp_path / "run").write_manifest({"student": "models/other", "teacher": "models/teacher"})
        assert read_manifest(tmp_path / "run").settings == {
            "student": "models/other",
            "teacher": str(tmp_path / "models" / "teacher"),
            "rollouts": str(tmp_path / "run" / "recorded" / "rollouts"),
        }

    def test_its_own_is_written_anew_and_anothers_is_not(self, tmp_path):
        made = recorder(tmp_path)
        assert made.write_manifest({"teacher": "one"})
        assert made.write_manifest({"teacher": "two"})
        assert read_manifest(tmp_path).settings["teacher"] == "two"
        file = tmp_path / "opd-diag.toml"
        file.write_text(file.read_text().partition("\n")[2])
        assert not made.write_manifest({"teacher": "three"})
        assert read_manifest(tmp_path).settings["teacher"] == "two"

    def test_what_toml_has_no_word_for(self):
        with pytest.raises(InputError) as error:
            _toml({"a": object})
        assert str(error.value) == (
            "<class 'object'> cannot stand in opd-diag.toml. Expected text, a number, true or false."
        )


def test_prompts(tmp_path):
    made = recorder(tmp_path)
    path = made.write_prompts([{"prompt": "2 + 2 =", "answer": "4"}, {"prompt": "\N{SNOWMAN}"}])
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"prompt": "2 + 2 =", "answer": "4"},
        {"prompt": "\N{SNOWMAN}"},
    ]


def test_the_lines_for_verl_record_its_batches(tmp_path, monkeypatch):
    """The class in TRAINERS.md, on a stand-in of verl's that has what the class asks of it."""

    class RayPPOTrainer:
        config = SimpleNamespace(
            actor_rollout_ref=SimpleNamespace(
                model=SimpleNamespace(path="org/student"), rollout=SimpleNamespace(temperature=1.0, top_p=1.0)
            ),
            trainer=SimpleNamespace(default_local_dir=str(tmp_path)),
            data=SimpleNamespace(max_response_length=3),
        )
        tokenizer = SimpleNamespace(eos_token_id=0)
        global_steps = 1

        def _update_actor(self, batch):
            return "updated"

    module = ModuleType("verl.trainer.ppo.ray_trainer")
    module.RayPPOTrainer = RayPPOTrainer
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = (Path(__file__).parents[2] / "TRAINERS.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "RayPPOTrainer" in block)
    names: dict = {}
    exec(compile(code, "TRAINERS.md", "exec"), names)
    trainer = names["RecordedTrainer"]()
    batch = {
        "prompts": torch.tensor([[0, 7], [8, 9]]),
        "responses": torch.tensor([[5, 0, 0], [5, 6, 5]]),
        "attention_mask": torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
        "response_mask": torch.tensor([[1, 1, 0], [1, 0, 1]]),
    }
    for step in (1, 2):
        trainer.global_steps = step
        assert trainer._update_actor(SimpleNamespace(batch=batch)) == "updated"
    first, second = load_rollouts(tmp_path / "recorded" / "rollouts" / "step-000001.jsonl")
    assert (first.prompt_ids, first.response_ids, first.stop_reason, first.generated) == ((7,), (5, 0), "stop", None)
    assert (second.prompt_ids, second.response_ids, second.generated) == ((8, 9), (5, 6, 5), (True, False, True))
    assert (first.provenance.step, first.provenance.plain) == (1, True)
    assert (tmp_path / "recorded" / "rollouts" / "step-000000.jsonl").exists()
    assert read_manifest(tmp_path).settings["student"] == "org/student"
