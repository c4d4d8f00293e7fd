"""What a teacher behind a server costs: requests, tokens and bytes counted by hand, and a pace that a clock gives."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from model_server import ModelServer

from opd_diag.records.settings import settings_from
from opd_diag.replay import make_plan, open_store, replay, wire
from opd_diag.replay.served import Served
from opd_diag.replay.wire import WirePace, WireWork, measured_wire, planned_wire
from opd_diag.replay.work import Lengths
from opd_diag.runs import read_manifest

ROWS, ROOM = 16, 10
"""Responses of a writer (8 prompts, 2 each), and their most tokens."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def server(teacher):
    """(…) → a server of the tiny run's teacher."""
    return lambda **about: ModelServer(teacher.model, tokenizer=teacher.tokenizer, **about)


@pytest.fixture
def planned(tiny_run, server):
    """(exact ids, K, requests at once, options) → a plan whose teacher stands behind a server."""

    def of(*, exact_ids=False, top=20, at_once=4, **options):
        manifest = read_manifest(tiny_run.run_dir)
        settings = settings_from(
            options | {"checkpoints": options.get("checkpoints", "30")}, manifest.settings, manifest.path
        )
        served = Served(server(exact_ids=exact_ids), "vllm=http://127.0.0.1:8000", top, at_once)
        return replace(make_plan(tiny_run.run_dir, settings, manifest), served=served, teacher=served.checkpoint)

    return of


def prompt_tokens(plan):
    """Tokens of all prompts, as the teacher sees them."""
    return sum(len(p.teacher_ids) for p in plan.prompts)


class TestPlanned:
    def test_a_question_a_response_of_step_0_step_30_and_the_teacher(self, planned):
        """Probes: 8 responses twice. The teacher's responses: a request a prompt. None of them fills its room of 10."""
        plan = planned()
        prompts = prompt_tokens(plan)
        assert planned_wire(plan, Lengths(plan, 0.5)) == WireWork(
            requests=3 * ROWS + 2 * 8 + 8,
            tokens=pytest.approx(3 * (2 * prompts + ROWS * 5) + 2 * (prompts + 8 * 5)),
            rows=3 * ROWS * 5 + 2 * 8 * 5,
            sampled=ROWS * 5,
        )

    def test_a_response_that_fills_its_room_has_a_row_more(self, planned):
        plan = planned()
        assert planned_wire(plan, Lengths(plan, 1.0)).rows == 3 * ROWS * (ROOM + 1) + 2 * 8 * ROOM

    def test_a_server_of_exact_ids_is_asked_about_shared_states_by_each_checkpoint(self, planned):
        """Both checkpoints: own, the teacher's; step 30 also at the start's, which are step 0's own."""
        plan = planned(exact_ids=True)
        prompts = prompt_tokens(plan)
        found = planned_wire(plan, Lengths(plan, 0.5))
        assert found.requests == 5 * ROWS + 2 * 8 + 8
        assert found.tokens == pytest.approx(5 * (2 * prompts + ROWS * 5) + 2 * (prompts + 8 * 5))
        assert found.rows == 5 * ROWS * 5 + 2 * 8 * 5

    def test_whole_distributions_hold_all_ids_anyway(self, planned):
        plans = [planned(exact_ids=exact, top=-1) for exact in (False, True)]
        first, second = (planned_wire(plan, Lengths(plan, 0.5)) for plan in plans)
        assert first == second

    def test_more_checkpoints_are_asked_about_at_their_own_states_alone(self, planned):
        few, many = planned(), planned(checkpoints="10,20,30")
        fewer, more = (planned_wire(plan, Lengths(plan, 0.5)).requests for plan in (few, many))
        assert more - fewer == 2 * ROWS

    def test_recorded_responses_are_counted_as_they_are_and_not_sampled(self, planned):
        plan = planned(states="teacher")
        short = tuple(SimpleNamespace(response_ids=(1,) * n, truncated=n == 3, prompt_ids=()) for n in (3, 4, 2, 3, 1))
        plan = replace(plan, recorded={"teacher": short})
        found = planned_wire(plan, Lengths(plan, 0.5))
        assert (found.requests, found.sampled) == (5 + 2 * 8, 0)
        assert found.rows == pytest.approx((3 + 4 + 2 + 3 + 1) + 2 + 2 * 8 * 13 / 5)

    def test_seconds_and_bytes_follow_from_the_pace(self):
        work, pace = WireWork(requests=9, tokens=1000, rows=300, sampled=50), WirePace(0.01, 0.2, 2048)
        assert work.seconds(pace) == pytest.approx(1000 * 0.01 + 50 * 0.2)
        assert work.received(pace) == 300 * 2048


class TestMeasured:
    @pytest.fixture
    def clock(self, monkeypatch):
        """A clock on which the questions take 4 seconds and the responses 6."""
        times = iter((100.0, 104.0, 200.0, 206.0))
        monkeypatch.setattr(wire, "time", SimpleNamespace(perf_counter=lambda: next(times)))

    @pytest.mark.usefixtures("clock")
    def test_as_many_questions_as_the_report_has_in_flight_are_timed(self, planned):
        plan = planned(at_once=3, max_new_tokens=6)
        asked, plain, drawn = plan.served.server, plan.served.server.sampled, []

        def counted(prompt_ids, **options):
            made = plain(prompt_ids, **options)
            drawn.append((len(made), len(made[0].ids), options["max_new_tokens"], options["temperature"]))
            return made

        asked.sampled = counted
        pace = measured_wire(plan, Lengths(plan, 0.5))
        assert len(asked.asked) == 1 + 3  # the first one warms the server up
        timed = asked.asked[1:]
        theirs = [p.teacher_ids for p in plan.prompts]
        for q in timed:
            n = next(len(ids) for ids in theirs if ids == q.ids[: len(ids)])
            assert (len(q.ids), q.start, q.top) == (n + 3, n, 20)  # half of the room of 6, made of the prompt's own ids
            assert q.ids[n:] == q.ids[:3]
        assert pace.token == pytest.approx(4.0 / sum(len(q.ids) for q in timed))
        assert [d[:1] + d[2:] for d in drawn] == [(1, 8, 1.0)] * 3
        assert pace.drawn == pytest.approx(6.0 / sum(tokens for _, tokens, _, _ in drawn))
        assert pace.row_bytes == 100  # of this server

    def test_no_question_exceeds_what_the_server_takes(self, planned):
        plan = planned(at_once=2)
        about = plan.served.server.about
        longest = max(len(p.teacher_ids) for p in plan.prompts)
        plan.served.server.about = replace(about, context=longest + 6)
        measured_wire(plan, Lengths(plan, 1.0))
        asked = plan.served.server.asked
        assert len(asked) == 3
        assert all(len(q.ids) + 1 <= longest + 6 for q in asked)


@pytest.mark.parametrize(("exact_ids", "each"), [(False, 1), (True, 2)])
def test_what_is_planned_is_what_is_asked(planned, tmp_path, exact_ids, each):
    """Two checkpoints at the start's states: one answer serves both, unless each has ids of its own to ask for."""
    plan = planned(exact_ids=exact_ids, states="start", max_prompts=3, max_new_tokens=4, rollouts_per_prompt=1)
    with open_store(tmp_path / "out", plan.run_dir) as store:
        replay(plan, store)
        counted = store.account.work
    asked = [q for q in plan.served.server.asked if q.top == 20]
    first = [q for q in plan.served.server.asked if q.top == 1]  # whether it is the same teacher
    assert len(asked) == each * 3 + 2 * 3
    assert planned_wire(plan, Lengths(plan, 1.0)).requests == len(asked)
    assert counted.requests == len(asked)
    assert len(first) == 3
    assert all((q.at is not None) is exact_ids for q in asked)
