"""Rollouts survive the disk token for token, and a damaged line is named."""

import dataclasses
import json
import math

import pytest

from opd_diag.errors import RolloutsError, StoreError
from opd_diag.records.rollout import Provenance, Rollout, load_rollouts, save_rollouts

SAMPLED = Provenance("sampled", "step 20", "abc", 20, 1.0, 1.0, 7)
UNKNOWN = Provenance("recorded", "final", "", None, math.nan, math.nan, None)


def rollout(**changes) -> Rollout:
    values = {
        "prompt_index": 3,
        "rollout_index": 1,
        "prompt_id": "q",
        "group": None,
        "prompt_ids": (1, 2),
        "teacher_prompt_ids": (9, 1, 2),
        "response_ids": (5, 6, 0),
        "stop_reason": "stop",
        "provenance": SAMPLED,
    }
    return Rollout(**values | changes)


def record(**changes) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(rollout()))) | changes


def refusal(tmp_path, *lines) -> str:
    file = tmp_path / "r.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    with pytest.raises(RolloutsError) as caught:
        load_rollouts(file)
    return str(caught.value).removeprefix(f"{file}")


def test_round_trip_of_every_field(tmp_path):
    full = rollout(
        group="math",
        generated=(True, False, True),
        sampled_logprobs=(-0.1, -1e-17, -123.456789012345),
        answer="4",
        is_correct=False,
        reward=0.25,
        exactness="text-stripped",
        prompt_text="2 + 2 <eos> ü",
        response_text='日本 "quoted" \\ \r\n\t\x00 \u2028 🙂',
    )
    save_rollouts(tmp_path / "new" / "r.jsonl", [full, rollout(stop_reason="length", response_ids=())])
    assert load_rollouts(str(tmp_path / "new" / "r.jsonl")) == [full, rollout(stop_reason="length", response_ids=())]


def test_nan_is_null_on_disk_and_nan_again_after(tmp_path):
    file = tmp_path / "r.jsonl"
    save_rollouts(file, [rollout(sampled_logprobs=(-1.0, math.nan, -2.0), provenance=UNKNOWN)])
    assert "NaN" not in file.read_text()
    (loaded,) = load_rollouts(file)
    assert loaded.sampled_logprobs[::2] == (-1.0, -2.0)
    assert all(map(math.isnan, (loaded.sampled_logprobs[1], loaded.provenance.temperature, loaded.provenance.top_p)))
    assert loaded.provenance.seed is None


def test_half_a_character_becomes_a_question_mark_and_the_ids_stay(tmp_path):
    save_rollouts(tmp_path / "r.jsonl", [rollout(response_text="a\ud83dz")])
    (loaded,) = load_rollouts(tmp_path / "r.jsonl")
    assert (loaded.response_text, loaded.response_ids) == ("a?z", (5, 6, 0))


def test_teacher_prompt_is_the_students_where_none_is_written(tmp_path):
    line = record()
    del line["teacher_prompt_ids"]
    (tmp_path / "r.jsonl").write_text(json.dumps(line) + "\n\n")
    assert load_rollouts(tmp_path / "r.jsonl")[0].teacher_prompt_ids == (1, 2)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "r.jsonl"
    save_rollouts(file, [rollout()])
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_rollouts(file, [rollout(), rollout(answer=object())])
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StoreError, match=r"Cannot write .*r\.jsonl: No space left on device\. Free some space and run"):
        save_rollouts(tmp_path / "r.jsonl", [rollout()])
    assert list(tmp_path.iterdir()) == []


def test_missing_and_empty_file(tmp_path):
    with pytest.raises(RolloutsError, match=r"gone does not exist or is no file\. Name one with --rollouts\."):
        load_rollouts(tmp_path / "gone")
    assert refusal(tmp_path, "") == " holds no rollout. Expected JSON lines as opd-diag writes them to rollouts/."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": [], "teacher_prompt_ids": [1]}, "Rollout q/1: a prompt needs at least one token for student"),
        ({"sampled_logprobs": [-1.0]}, "Rollout q/1: sampled_logprobs has 1 entries, the response 3 tokens."),
        ({"generated": []}, "Rollout q/1: generated has 0 entries, the response 3 tokens."),
        ({"extra": 1}, "has unknown extra."),
        ({"prompt_index": "3"}, "prompt_index must be a whole number from 0, found '3'."),
        ({"rollout_index": -1}, "rollout_index must be a whole number from 0, found -1."),
        (
            {"response_ids": [1, 2.5]},
            "response_ids must be a list of token ids (whole numbers from 0), found [1, 2.5].",
        ),
        ({"prompt_ids": [True]}, "prompt_ids must be a list of token ids (whole numbers from 0), found [True]."),
        ({"teacher_prompt_ids": "1 2"}, "teacher_prompt_ids must be a list of token ids"),
        ({"prompt_ids": None}, "prompt_ids must be a list of token ids (whole numbers from 0), found None."),
        ({"generated": [1, 0, 1]}, "generated must be a list of true and false, or null, found [1, 0, 1]."),
        (
            {"sampled_logprobs": ["a", "b", "c"]},
            "sampled_logprobs must be a list of numbers and nulls, or null, found [",
        ),
        ({"stop_reason": "eos"}, "stop_reason must be one of stop, length, unknown, found 'eos'."),
        ({"exactness": "text"}, "exactness must be one of ids, text-with-specials, text-stripped, found 'text'."),
        ({"is_correct": 1}, "is_correct must be true, false or null, found 1."),
        ({"reward": "high"}, "reward must be a number or null, found 'high'."),
        ({"provenance": "sampled"}, "provenance must be an object, found 'sampled'."),
        ({"provenance": {"origin": "sampled"}}, "missing 6 required positional arguments"),
    ],
)
def test_a_damaged_line_is_named_with_what_is_wrong(tmp_path, changes, message):
    found = refusal(tmp_path, record(), record(**changes))
    assert found.startswith(", line 2: ")
    assert message in found
    assert found.endswith(". Expected a rollout as opd-diag writes it to rollouts/.")


def test_lines_that_are_no_rollout_at_all(tmp_path):
    assert refusal(tmp_path, '{"prompt_index"') == (
        ", line 1: not JSON (Expecting ':' delimiter at column 16). Mend or delete the line."
    )
    assert refusal(tmp_path, "[" * 200_000) == ", line 1: not JSON (nested too deeply). Mend or delete the line."
    assert refusal(tmp_path, "1" * 5000) == ", line 1: not JSON (a number of too many digits). Mend or delete the line."
    assert ", line 1: expected a JSON object on each line, found int." in refusal(tmp_path, "3")
    lacking = {k: v for k, v in record().items() if k not in ("response_ids", "provenance")}
    assert ", line 1: lacks response_ids, provenance. Expected" in refusal(tmp_path, lacking)


def test_a_file_cut_while_it_was_written_is_refused(tmp_path):
    file = tmp_path / "r.jsonl"
    save_rollouts(file, [rollout(), rollout(rollout_index=2)])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(RolloutsError, match=r"r\.jsonl, line 2: not JSON"):
        load_rollouts(file)


def test_states_are_what_the_student_generated():
    tools = rollout(generated=(True, False, True))
    assert (rollout().state_positions, tools.state_positions) == ((0, 1, 2), (0, 2))
    assert sum(len(r.state_positions) for r in (rollout(), tools)) == 5


def test_names_truncation_and_plain_sampling():
    assert rollout().name == "q/1"
    assert [rollout(stop_reason=r).truncated for r in ("stop", "length", "unknown")] == [False, True, False]
    assert SAMPLED.plain
    assert not UNKNOWN.plain
    assert not dataclasses.replace(SAMPLED, temperature=0.7).plain
    assert not dataclasses.replace(SAMPLED, top_p=0.9).plain
