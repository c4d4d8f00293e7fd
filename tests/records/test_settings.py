"""Flags win over the manifest, and a wrong value is one clear sentence."""

import re
from pathlib import Path

import numpy as np
import pytest

from opd_diag.errors import InputError
from opd_diag.records.settings import SETTING_NAMES, Settings, settings_from, type_problem

FILE = Path("run/opd-diag.toml")


def refusal(options, manifest=None) -> str:
    with pytest.raises(InputError) as caught:
        settings_from(options, manifest or {}, FILE)
    return str(caught.value)


def test_flags_over_manifest_over_defaults():
    settings = settings_from({"k": 4, "seed": None}, {"k": 8, "seed": 3, "teacher": "t"}, FILE)
    assert (settings.k, settings.seed, settings.teacher, settings.max_prompts) == (4, 3, "t", 64)


def test_a_flag_that_is_false_or_zero_still_wins():
    settings = settings_from({"trust_remote_code": False, "seed": 0}, {"trust_remote_code": True, "seed": 3}, FILE)
    assert (settings.trust_remote_code, settings.seed) == (False, 0)


@pytest.mark.parametrize("value", ["20, final,,20", ["20", " final "], (20, "final"), [20, "final", 20]])
def test_names_come_as_text_with_commas_or_as_a_list(value):
    assert settings_from({"checkpoints": value}, {}, None).checkpoints == ("20", "final")


def test_equal_settings_are_equal_however_they_are_written():
    written = settings_from(
        {"temperature": 1, "states": ["on-policy", "start", "teacher"], "teacher": Path("t")}, {}, None
    )
    assert written == Settings(teacher="t")
    assert [type(v) for v in (written.temperature, written.teacher)] == [float, str]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("k", "sixteen", "Option k must be a whole number, found 'sixteen' (str)."),
        ("k", True, "Option k must be a whole number, found True (bool)."),
        ("max_prompts", 2.0, "Option max_prompts must be a whole number, found 2.0 (float)."),
        ("seed", np.int64(3), "Option seed must be a whole number, found np.int64(3) (int64)."),
        ("temperature", "hot", "Option temperature must be a number, found 'hot' (str)."),
        ("top_p", False, "Option top_p must be a number, found False (bool)."),
        ("teacher", 3, "Option teacher must be text, found 3 (int)."),
        ("dtype", ["float32"], "Option dtype must be text, found ['float32'] (list)."),
        ("trust_remote_code", "yes", "Option trust_remote_code must be true or false, found 'yes' (str)."),
        (
            "chat_template_kwargs",
            "{}",
            "Option chat_template_kwargs must be a table of names and values, found '{}' (str).",
        ),
        ("states", 3, "Option states must be names separated by commas, or a list of them, found 3 (int)."),
        ("checkpoints", [1.5], "Option checkpoints must be names separated by commas, or a list of them, found [1.5]"),
        (
            "checkpoints",
            [True],
            "Option checkpoints must be names separated by commas, or a list of them, found [True]",
        ),
    ],
)
def test_wrong_types(name, value, message):
    assert refusal({name: value}).startswith(message)
    assert refusal({}, {name: value}).startswith(f"{FILE}: {message}")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("k", 0, "k must be 1 to 32, found 0"),
        ("k", 33, "k must be 1 to 32, found 33"),
        ("rollouts_per_prompt", 0, "rollouts_per_prompt must be at least 1, found 0"),
        ("max_prompts", -1, "max_prompts must be at least 1, found -1"),
        ("max_new_tokens", 0, "max_new_tokens must be at least 1, found 0"),
        ("temperature", -0.1, "temperature must be 0 or more, found -0.1"),
        ("temperature", float("nan"), "temperature must be 0 or more, found nan"),
        ("temperature", float("inf"), "temperature must be 0 or more, found inf"),
        ("top_p", 0, "top_p must be above 0 and at most 1, found 0.0"),
        ("top_p", 1.01, "top_p must be above 0 and at most 1, found 1.01"),
        ("student_temperature", 0, "student_temperature must be above 0, found 0.0"),
        ("student_temperature", float("inf"), "student_temperature must be above 0, found inf"),
        ("teacher_temperature", float("nan"), "teacher_temperature must be above 0, found nan"),
        ("seed", -1, "seed must be 0 to 4294967295, found -1"),
        ("seed", 2**32, "seed must be 0 to 4294967295, found 4294967296"),
        ("step_base", 2, "step_base must be 0 or 1, found 2"),
        ("beta", 1.1, "beta must be 0 to 1, found 1.1"),
        ("beta", float("nan"), "beta must be 0 to 1, found nan"),
        ("dtype", "int8", "dtype must be one of float32, bfloat16, float16, found int8"),
        ("states", "", "states must name at least one state set"),
        ("sampler", "hf", "sampler must be one of local, vllm, found hf"),
        ("engine", "spark", "engine must be one of local, ray, found spark"),
        ("tensor_parallel", 1, "tensor_parallel must be at least 2, found 1"),
        ("workers", 0, "workers must be at least 1, found 0"),
        ("cpus_per_worker", 0, "cpus_per_worker must be at least 1, found 0"),
        ("gpus_per_worker", -0.5, "gpus_per_worker must be 0 to 1, or a whole number, found -0.5"),
        ("gpus_per_worker", 1.5, "gpus_per_worker must be 0 to 1, or a whole number, found 1.5"),
        ("gpus_per_worker", float("nan"), "gpus_per_worker must be 0 to 1, or a whole number, found nan"),
        ("states", "start,mine", "states must be of on-policy, start, teacher, back, near-on-policy, found 'mine'"),
    ],
)
def test_out_of_range(name, value, message):
    assert refusal({name: value}) == f"Option {message}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 1),
        ("k", 32),
        ("temperature", 0),
        ("top_p", 1),
        ("seed", 2**32 - 1),
        ("step_base", 0),
        ("step_base", 1),
        ("beta", 0),
        ("beta", 1),
        ("sampler", "vllm"),
        ("engine", "ray"),
        ("workers", 1),
        ("gpus_per_worker", 0),
        ("gpus_per_worker", 2),
    ],
)
def test_the_ends_of_a_range_belong_to_it(name, value):
    assert getattr(settings_from({name: value}, {}, None), name) == value


def test_unknown_names_in_flags_and_manifest():
    assert refusal({"tracher": "x"}).startswith("unknown setting tracher. Known: allow_pickle, ")
    assert refusal({}, {"tracher": "x"}).startswith(f"{FILE}: unknown setting tracher. Known: ")


def test_every_default_has_the_type_it_asks_of_users():
    defaults = Settings()
    asked = {name: getattr(defaults, name) for name in SETTING_NAMES if getattr(defaults, name) is not None}
    assert len(asked) >= 15
    assert [problem for name, value in asked.items() if (problem := type_problem(name, value))] == []


def test_the_message_of_a_single_option_is_one_sentence():
    assert re.fullmatch(r"[^.]*\.", refusal({"k": "sixteen"}))
