"""Responses that are drawn in another place, as records: whose they are, whatever order they come in."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from models import word_tokenizer

from opd_diag.inference import drawn_elsewhere
from opd_diag.inference.drawn_elsewhere import Elsewhere, sample_elsewhere
from opd_diag.inference.shards import keep_nothing
from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.servers import Sampled
from opd_diag.tokenization import EncodedPrompt

TOKENIZER = word_tokenizer()
SOURCE = Provenance("sampled", "step 40", "key", 40, 1.0, 1.0, 0)


def prompt(index, **about):
    return EncodedPrompt(index, Prompt("text", f"id{index}", **about), (10 + index,), (20 + index, 5))


def sampled(of, *, keep=keep_nothing, progress=None, each=2, **options):
    """Let the last prompt that is asked about be finished first; response i to a prompt is i + 1 times its first id."""
    asked = []

    def draw(prompts):
        asked.extend(prompts)
        for place in reversed(range(len(prompts))):
            ids = prompts[place][0]
            yield place, [Sampled((ids[0],) * (i + 1), -np.ones(i + 1) / 2, "length") for i in range(each)]

    given = {"stream": "7 40", "as_teacher": False, "keeps_logprobs": True} | options
    writer = Elsewhere(draw, Sampling(each, 9), SOURCE, **given)
    return sample_elsewhere(writer, TOKENIZER, of, progress=progress, keep=keep), asked


def test_of_a_response_all_is_kept():
    made, _ = sampled([prompt(3, answer="7", group="maths")], each=1)
    assert made == [
        Rollout(
            prompt_index=3, rollout_index=0, prompt_id="id3", group="maths", prompt_ids=(13,),
            teacher_prompt_ids=(23, 5), response_ids=(13,), stop_reason="length", provenance=SOURCE,
            sampled_logprobs=(-0.5,), answer="7", is_correct=False, prompt_text="10", response_text="10",
        )
    ]  # fmt: skip


def test_they_stand_by_prompt_and_rollout_in_whatever_order_they_come():
    told = []
    made, asked = sampled([prompt(i) for i in (2, 0, 1)], progress=lambda *of: told.append(of))
    assert [(r.prompt_index, r.rollout_index) for r in made] == [(i, j) for i in range(3) for j in range(2)]
    assert [r.response_ids[0] for r in made] == [10, 10, 11, 11, 12, 12]
    assert [ids for ids, _ in asked] == [(12,), (10,), (11,)]
    assert told == [(0, 6), (2, 6), (4, 6), (6, 6)]


def test_as_the_teacher_sees_them():
    made, asked = sampled([prompt(0)], as_teacher=True)
    assert asked[0][0] == (20, 5)
    assert (made[0].prompt_ids, made[0].response_ids) == ((10,), (20,))


def test_seeds_are_keyed_by_stream_and_prompt():
    _, asked = sampled([prompt(i) for i in range(3)])
    assert [seed for _, seed in asked] == [zlib.crc32(f"7 40 {i}".encode()) // 2 for i in range(3)]
    _, other = sampled([prompt(1)], stream="7 30")
    assert other[0][1] != asked[1][1]


@pytest.mark.parametrize("keeps", [True, False])
def test_log_probabilities_are_kept_where_they_are_those_of_records(keeps):
    made, _ = sampled([prompt(0)], keeps_logprobs=keeps)
    assert [r.sampled_logprobs for r in made] == ([(-0.5,), (-0.5, -0.5)] if keeps else [None, None])


def test_what_is_kept_of_a_shard_is_in_order(monkeypatch):
    monkeypatch.setattr(drawn_elsewhere, "ROWS_PER_SHARD", 4)
    kept = {}

    def keep(shard, make):
        kept[shard.number] = [(r.prompt_index, r.rollout_index) for r in make()]
        return []

    assert sampled([prompt(i) for i in range(3)], keep=keep)[0] == []
    assert kept == {0: [(0, 0), (0, 1), (1, 0), (1, 1)], 1: [(2, 0), (2, 1)]}
