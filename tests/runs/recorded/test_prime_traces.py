"""prime-rl's episodes: paths through a graph of messages, with ids where the client had them."""

import math

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import episode, lines, node, refusal, trace

USER = node("user", "2 + 2 =", (1, 2, 3), (0, 0, 0))
CALL = node("assistant", "calc", (4, 10, 11), (0, 1, 1), (-0.5, -0.25), parent=0)
TOOL = node("tool", "4", (5, 6), (0, 0), parent=1)
ANSWER = node("assistant", "4", (4, 12, 13), (0, 1, 1), (-1.0, -2.0), parent=2)
OTHER = node("assistant", "no", (4, 14), (0, 1), (-3.0,), parent=1)
CALLS = [
    {"node": 1, "finish_reason": "tool_calls", "sampling": {"temperature": 0.5}},
    {"node": 3, "finish_reason": "stop", "sampling": {"temperature": 0.75}},
    {"node": 4, "finish_reason": "length"},
]


def written(tmp_path, *episodes, subset="effective", kind="train", step=6):
    return lines(tmp_path / "rollouts" / f"step_{step}" / kind / subset / "traces.jsonl", *episodes)


def test_a_path_of_two_turns(tmp_path):
    path = written(tmp_path, episode(trace(USER, CALL, TOOL, ANSWER, calls=CALLS[:2]), policy={"start": 3, "end": 4}))
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness, file.evaluation) == ("prime-traces", 6, "ids", False)
    (recorded,) = read_recorded(file)
    kept = [None if math.isnan(p) else p for p in recorded.sampled_logprobs]
    assert kept == [-0.5, -0.25, None, None, None, -1.0, -2.0]
    assert recorded == Recorded(
        place=f"{path}, line 1",
        step=6,
        updates=4,
        exactness="ids",
        prompt_ids=(1, 2, 3, 4),
        response_ids=(10, 11, 5, 6, 4, 12, 13),
        generated=(True, True, False, False, False, True, True),
        sampled_logprobs=recorded.sampled_logprobs,
        stop_reason="stop",
        temperature=0.75,
        reward=0.75,
        answer="4",
        group="gsm",
        prompt_name="gsm-7",
    )


def test_a_state_that_two_paths_share_counts_once(tmp_path):
    path = written(tmp_path, episode(trace(USER, CALL, TOOL, ANSWER, OTHER, calls=CALLS)))
    first, second = read_recorded(path)
    assert first.generated == (True, True, False, False, False, True, True)
    assert (second.prompt_ids, second.response_ids) == (first.prompt_ids, (10, 11, 4, 14))
    assert second.generated == (False, False, False, True)
    assert (second.stop_reason, second.temperature, second.updates) == ("length", None, None)


def test_agents_that_are_not_trained_are_passed_over(tmp_path):
    judge = trace(
        node("user", "Is it right?", (1,), (0,)), node("assistant", "yes", (2,), (1,), parent=0), trainable=False
    )
    path = written(tmp_path, episode(trace(USER, CALL), judge))
    assert [r.response_ids for r in read_recorded(path)] == [(10, 11)]


def test_messages_where_there_are_no_ids(tmp_path):
    system, user = node("system", "Be brief."), node("user", "2 + 2 =", parent=0)
    path = written(tmp_path, episode(trace(system, user, node("assistant", "4", parent=1))))
    (recorded,) = read_recorded(path)
    assert recorded.exactness == "text-stripped"
    assert recorded.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 ="})
    assert recorded.response == ({"role": "assistant", "content": "4"},)
    assert (recorded.prompt_ids, recorded.response_ids) == (None, None)


def test_what_was_trained_on_stands_for_all(tmp_path):
    kept = written(tmp_path, episode(trace(USER, CALL)))
    written(tmp_path, episode(trace(USER, CALL)), subset="all")
    growing = written(tmp_path, episode(trace(USER, CALL)), subset="all", step=7)
    judged = written(tmp_path, episode(trace(USER, CALL)), kind="eval")
    assert [(f.path, f.evaluation) for f in find_recorded(tmp_path)] == [
        (kept, False),
        (growing, False),
        (judged, True),
    ]


def test_traces_without_a_sampled_message_are_left_out(tmp_path):
    path = written(tmp_path, episode(trace(USER), trace(USER, CALL)), episode())
    notes = []
    assert len(read_recorded(path, notes=notes)) == 1
    assert notes == [f"{path}: 1 of 2 records left out, as nothing of them was sampled."]


@pytest.mark.parametrize("rewards", [{}, {"a": None}, {"a": {"score": "x"}}, [1], {"a": {"score": 1, "weight": None}}])
def test_rewards_that_were_not_given_are_unknown(tmp_path, rewards):
    path = written(tmp_path, episode(trace(USER, CALL) | {"rewards": rewards}))
    assert [r.reward for r in read_recorded(path)] == [None]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [USER, CALL | {"parent": 1}],
            "traces.jsonl, line 1: expected the parent of node 1 before it, found 1. Mend it or leave the file out.",
        ),
        (
            [USER, CALL | {"mask": [True]}],
            "traces.jsonl, line 1: 6 token ids, but 4 entries of the mask of generated tokens. Mend "
            "it or leave the file "
            "out.",
        ),
        (
            ["hello"],
            "traces.jsonl, line 1: expected 'nodes' as a list of objects, found list (['hello']). "
            "Mend it or leave the file out.",
        ),
    ],
)
def test_graphs_that_do_not_fit_are_named(tmp_path, nodes, message):
    looped = [*nodes, OTHER] if nodes[-1] != "hello" and nodes[-1].get("parent") == 1 else nodes
    assert refusal(written(tmp_path, episode(trace(*looped)))) == message
