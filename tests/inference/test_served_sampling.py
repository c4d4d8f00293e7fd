"""Responses that a server samples, as records: whose they are, what was asked for them, and when nothing more is."""

from __future__ import annotations

import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from model_server import ModelServer
from models import word_tokenizer, wrapped

from opd_diag.errors import PromptsError, ServerError
from opd_diag.inference import drawn_elsewhere
from opd_diag.inference.served_sampling import sample_served
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.records.prompt import Prompt
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.records.sampling import Sampling
from opd_diag.servers import About, Sampled
from opd_diag.tokenization import EncodedPrompt

from .truth import logprobs_before

TOKENIZER = word_tokenizer()
ABOUT = About("vllm", "0.32.0", "served/teacher", None, 512, None, False, "It is too old.", True)


class Scripted:
    """A server whose i-th response to a prompt is i + 1 times the prompt's first id, and then the stop token."""

    def __init__(self):
        self.about, self.asked = ABOUT, []

    def sampled(self, prompt_ids, **asked):
        self.asked.append((tuple(prompt_ids), asked))
        return [self.response(prompt_ids, i, asked["max_new_tokens"]) for i in range(asked["n"])]

    @staticmethod
    def response(prompt_ids, i, room):
        ids = (*[prompt_ids[0]] * (i + 1), 2)[:room]
        return Sampled(ids, -0.5 * np.arange(1, len(ids) + 1), "stop" if ids[-1] == 2 else "length")


def teacher_of(server, *, at_once=3):
    return ServedTeacher("big", "key of big", server, 20, stop_ids=(2,), at_once=at_once)


def prompt(index, ids, *, teacher_ids=None, **about):
    return EncodedPrompt(index, Prompt("text", f"id{index}", **about), tuple(ids), tuple(teacher_ids or ids))


def prompts(n):
    return [prompt(i, [10 + i, 4]) for i in range(n)]


def sample(server, of, *, at_once=3, keep=None, progress=None, **settings):
    more = {} if keep is None else {"keep": keep}
    settings = {"rollouts_per_prompt": 2, "max_new_tokens": 9} | settings
    teacher = teacher_of(server, at_once=at_once)
    made = sample_served(
        teacher, TOKENIZER, of, label="teacher", sampling=Sampling(**settings), progress=progress, **more
    )
    return made, teacher


class TestRecords:
    def test_of_a_response_all_is_kept(self):
        asked = prompt(4, [7, 8], teacher_ids=[5, 6, 9], answer="2", group="maths")
        made, _ = sample(Scripted(), [asked], rollouts_per_prompt=1, seed=3)
        assert made == [
            Rollout(
                prompt_index=4, rollout_index=0, prompt_id="id4", group="maths", prompt_ids=(7, 8),
                teacher_prompt_ids=(5, 6, 9), response_ids=(5, 2), stop_reason="stop",
                provenance=Provenance("sampled", "teacher", "key of big", None, 1.0, 1.0, 3),
                sampled_logprobs=(-0.5, -1.0), answer="2", is_correct=True, prompt_text="4 5", response_text="2 </s>",
            )
        ]  # fmt: skip

    def test_responses_stand_by_prompt_and_rollout_and_end_as_the_server_says(self):
        made, _ = sample(Scripted(), prompts(3)[::-1], rollouts_per_prompt=3, max_new_tokens=3)
        assert [(r.prompt_index, r.rollout_index) for r in made] == [(p, i) for p in range(3) for i in range(3)]
        assert [r.response_ids for r in made[3:6]] == [(11, 2), (11, 11, 2), (11, 11, 11)]
        assert [r.stop_reason for r in made] == ["stop", "stop", "length"] * 3
        assert all(r.is_correct is None for r in made)

    @pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.0, 0.9)])
    def test_log_probabilities_are_of_the_models_own_distribution_or_none(self, temperature, top_p):
        made, _ = sample(Scripted(), prompts(1), temperature=temperature, top_p=top_p)
        assert [r.sampled_logprobs for r in made] == [None, None]
        assert (made[0].provenance.temperature, made[0].provenance.top_p) == (temperature, top_p)

    def test_a_server_may_give_none(self):
        server = Scripted()
        server.response = lambda ids, i, room: Sampled((5, 2), None, "stop")
        made, _ = sample(server, prompts(1))
        assert [r.sampled_logprobs for r in made] == [None, None]

    def test_they_are_the_teachers_own_at_what_it_sees(self):
        model = wrapped("qwen3", vocabulary=len(TOKENIZER.hf), seed=2)
        server = ModelServer(model)
        made, _ = sample(server, [prompt(0, [7], teacher_ids=[5, 6, 9]), prompt(1, [8, 3])], max_new_tokens=5)
        for r in made:
            n = len(r.response_ids)
            rows, _ = logprobs_before(model, r.teacher_prompt_ids, r.response_ids, range(n))
            assert r.sampled_logprobs == pytest.approx(rows[range(n), r.response_ids], abs=1e-5)
            assert (r.stop_reason == "stop") is (r.response_ids[-1] == 2)


class TestWhatIsAsked:
    def test_each_prompt_once_as_the_teacher_sees_it(self):
        server = Scripted()
        of = [prompt(i, [3], teacher_ids=[10 + i]) for i in range(5)]
        _, teacher = sample(server, of, rollouts_per_prompt=2, max_new_tokens=9, temperature=0.5, top_p=0.8)
        assert sorted(ids for ids, _ in server.asked) == [(10 + i,) for i in range(5)]
        for _, asked in server.asked:
            assert {name: of for name, of in asked.items() if name != "seed"} == {
                "n": 2, "max_new_tokens": 9, "temperature": 0.5, "top_p": 0.8,
            }  # fmt: skip
        assert teacher.forwarded.requests == 5
        assert teacher.forwarded.tokens == 5 * 1 + 5 * (2 + 3)

    def test_a_seed_is_the_prompts_whatever_else_is_asked(self):
        def seeds(of, **settings):
            server = Scripted()
            sample(server, of, **settings)
            return {ids[0] - 10: asked["seed"] for ids, asked in server.asked}

        found = seeds(prompts(6))
        assert found == {i: zlib.crc32(f"0 {i}".encode()) // 2 for i in range(6)}
        assert len({*found.values()}) == 6
        assert all(0 <= seed < 2**31 for seed in found.values())
        assert seeds(prompts(6)[4:1:-1], at_once=1) == {i: found[i] for i in (2, 3, 4)}
        assert not {*seeds(prompts(6), seed=1).values()} & {*found.values()}

    def test_no_more_at_once_than_is_allowed_and_as_many(self):
        server, room, all_there = Scripted(), threading.Semaphore(3), threading.Barrier(3)
        plain = server.sampled

        def slow(prompt_ids, **asked):
            assert room.acquire(blocking=False), "a fourth request is in flight"
            all_there.wait(timeout=20)  # none goes on before three are there
            room.release()
            return plain(prompt_ids, **asked)

        server.sampled = slow
        made, _ = sample(server, prompts(3), at_once=3)
        assert len(made) == 6

    def test_progress_counts_responses(self):
        told = []
        sample(Scripted(), prompts(3), progress=lambda done, total: told.append((done, total)))
        assert told == [(0, 6), (2, 6), (4, 6), (6, 6)]


class TestTheContext:
    def server(self, context):
        server = Scripted()
        server.about = replace(ABOUT, context=context)
        return server

    def test_a_prompt_without_room_for_its_response_is_refused_before_anything_is_asked(self):
        server = self.server(14)
        with pytest.raises(PromptsError) as error:
            sample(server, [*prompts(2), prompt(2, [3], teacher_ids=[3] * 4)])
        assert str(error.value) == (
            "Prompt id2 has 4 tokens; with --max-new-tokens 9 that exceeds the 12 tokens that big takes. Lower "
            "--max-new-tokens, leave the prompt out, or let the server take more."
        )
        assert server.asked == []

    @pytest.mark.parametrize("context", [15, None])
    def test_what_just_fits_is_asked(self, context):
        assert len(sample(self.server(context), [prompt(2, [3] * 4)])[0]) == 2


class TestShards:
    @pytest.fixture(autouse=True)
    def two_prompts_a_shard(self, monkeypatch):
        monkeypatch.setattr(drawn_elsewhere, "ROWS_PER_SHARD", 5)

    def test_what_was_kept_is_not_sampled_again(self):
        kept, told = {}, []

        def keep(shard, make):
            told.append((shard.number, shard.count, shard.rows))
            if shard.number not in kept:
                kept[shard.number] = make()
            return kept[shard.number]

        first, _ = sample(Scripted(), prompts(5), keep=keep)
        assert told == [(0, 3, [0, 1]), (1, 3, [2, 3]), (2, 3, [4])]
        assert {number: len(of) for number, of in kept.items()} == {0: 4, 1: 4, 2: 2}
        del kept[1]
        server, done = Scripted(), []
        again, teacher = sample(server, prompts(5), keep=keep, progress=lambda now, total: done.append(now))
        assert again == first
        assert sorted(ids for ids, _ in server.asked) == [(12, 4), (13, 4)]
        assert teacher.forwarded.requests == 2
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, 10)

    def test_of_more_responses_than_a_shard_holds_a_prompt_is_one(self):
        rows = []

        def keep(shard, make):
            rows.append(shard.rows)
            return make()

        sample(Scripted(), prompts(2), keep=keep, rollouts_per_prompt=8)
        assert rows == [[0], [1]]


def test_after_an_error_nothing_more_is_asked_and_nobody_waits():
    server, go_on = Scripted(), threading.Event()
    plain, began = server.sampled, []

    def failing(prompt_ids, **asked):
        began.append(prompt_ids[0] - 10)
        if began[-1] == 1:
            raise ServerError("It is gone.")
        if began[-1] > 1:  # in flight while the error is told
            go_on.wait(timeout=20)
        return plain(prompt_ids, **asked)

    server.sampled = failing
    with pytest.raises(ServerError, match=r"^It is gone\.$"):
        sample(server, prompts(40), at_once=1)
    assert not go_on.is_set()
    go_on.set()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and "ThreadPoolExecutor" in thread.name:
            thread.join(timeout=20)
    assert began in ([0, 1], [0, 1, 2])
