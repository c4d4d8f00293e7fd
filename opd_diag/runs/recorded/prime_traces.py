"""What prime-rl sampled, ``rollouts/step_N/{train,eval}/{all,effective}/traces.jsonl``: one episode a line.

An episode of verifiers has traces, one for each agent; a trace is a graph of messages, and each path from its root
to a leaf is one response. A node has the ids it adds, which of them the model sampled, and the log-probability of
those; without ids (a client that relays text) its message stands. Traces of agents that are not trained are passed
over. ``run.work`` tells the versions of the weights, which count updates and lag behind the step: the newest one that
wrote some of the episode is taken. ``effective`` holds what was trained on of what ``all`` holds. Source:
``src/prime_rl/monitors/file.py`` and ``verifiers/v1/{episode,trace,graph}.py`` of 2026-08.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.records.rollout import StopReason
from opd_diag.runs.recorded.lines import rows
from opd_diag.runs.recorded.recorded_file import Format, Reading, RecordedFile
from opd_diag.runs.recorded.tokens import with_ids
from opd_diag.runs.recorded.values import finite, logprobs, mask, messages, named, refused, token_ids, whole

_STOPPED: dict[Any, StopReason] = {"stop": "stop", "tool_calls": "stop", "length": "length"}


def read(file: RecordedFile, reading: Reading) -> list[Recorded]:
    """Read the episodes of one step.

    Raises
    ------
    RolloutsError
        A line is no episode.
    """
    made: list[Recorded | None] = []
    for place, episode in rows(file.path, reading):
        blank = _blank(episode, place, file)
        for trace in _objects(episode, "traces", place):
            if _inside(trace, "agent", "trainable") is False:
                continue
            made += _paths_read(trace, _with_task(blank, trace))
    return reading.kept(file.path, made, "nothing of them was sampled")


def _blank(episode: Mapping[str, Any], place: str, file: RecordedFile) -> Recorded:
    policy = _inside(episode, "run", "work", "policy")
    return Recorded(
        place=place,
        step=file.step,
        updates=whole(policy, "end", place) if isinstance(policy, dict) else None,
        exactness="ids",
        group=named(_inside(episode, "env", "name")) or named(_inside(episode, "env", "id")),
    )


def _paths_read(trace: Mapping[str, Any], blank: Recorded) -> list[Recorded | None]:
    """Read a trace path by path; a state that two paths share is one of the first path, and of the prompt of none."""
    nodes = _objects(trace, "nodes", blank.place)
    parents = [whole(node, "parent", blank.place) for node in nodes]
    calls = {call["node"]: call for call in _optional_objects(trace, "calls") if type(call.get("node")) is int}
    taken: set[int] = set()
    read = []
    for leaf in sorted(set(range(len(nodes))) - set(parents)):
        path = _path(leaf, parents, blank.place)
        last = next((calls[i] for i in reversed(path) if i in calls), {})
        known = replace(
            blank,
            stop_reason=_STOPPED.get(named(last.get("finish_reason")), "unknown"),
            temperature=finite(_inside(last, "sampling", "temperature")),
        )
        read.append(_of_path([(nodes[i], i in taken) for i in path], known))
        taken.update(path)
    return read


def _path(leaf: int, parents: Sequence[int | None], place: str) -> list[int]:
    path = [leaf]
    while True:
        node = path[-1]
        parent = parents[node]
        if parent is None:
            return path[::-1]
        if parent >= node:
            raise RolloutsError(
                f"{place}: expected the parent of node {node} before it, found {parent}. Mend it or leave the file out."
            )
        path.append(parent)


def _of_path(path: Sequence[tuple[Mapping[str, Any], bool]], blank: Recorded) -> Recorded | None:
    if not any(node.get("token_ids") for node, _ in path):
        return _of_messages(path, blank)
    ids: list[int] = []
    own: list[bool] = []
    sampled: list[float] = []
    start = None
    for node, taken in path:
        new = token_ids(node, "token_ids", blank.place)
        flags = mask(node, "mask", blank.place)
        values = logprobs(node, "logprobs", blank.place) or ()
        if start is None and any(flags):
            start = len(ids) + flags.index(True)
        ids += new
        own += [flag and not taken for flag in flags]
        spread = iter(values)
        sampled += [next(spread, 0.0) if flag else 0.0 for flag in flags]
    return with_ids(blank, ids, own, sampled, start)


def _of_messages(path: Sequence[tuple[Mapping[str, Any], bool]], blank: Recorded) -> Recorded | None:
    """Give a path without ids as messages: the response starts at the first one that was sampled."""
    start = next((i for i, (node, _) in enumerate(path) if node.get("sampled") is True), 0)
    if not start:
        return None
    said = messages({"message": [node.get("message") for node, _ in path]}, "message", blank.place)
    return replace(blank, exactness="text-stripped", prompt=said[:start], response=said[start:])


def _reward(trace: Mapping[str, Any]) -> float | None:
    """Give the sum of a trace's rewards, each times its weight; None where none was given."""
    rewards = trace.get("rewards")
    given = [r for r in rewards.values() if isinstance(r, dict)] if isinstance(rewards, dict) else []
    parts = [(finite(r.get("score")), finite(r.get("weight", 1.0))) for r in given]
    known = [score * weight for score, weight in parts if score is not None and weight is not None]
    return finite(sum(known)) if parts and len(known) == len(parts) else None


def _with_task(blank: Recorded, trace: Mapping[str, Any]) -> Recorded:
    return replace(
        blank,
        reward=_reward(trace),
        prompt_name=named(_inside(trace, "task", "key")) or named(_inside(trace, "task", "hash")),
        answer=named(_inside(trace, "task", "data", "answer")),
    )


def _objects(record: Mapping[str, Any], name: str, place: str) -> list[dict[str, Any]]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise refused(record, name, "a list of objects", place)
    return value


def _optional_objects(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = record.get(name)
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _inside(record: Any, *names: str) -> Any:
    """Give what lies under nested names; None where the way ends before."""
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record


FORMATS = (
    Format(
        "prime-traces",
        "prime-rl rollouts/step_N/**/traces.jsonl",
        "ids",
        re.compile(r"/rollouts/step_(?P<step>\d+)/(?:train|eval)/(?:all|effective)/traces\.jsonl$", re.ASCII),
        read,
        frozenset({"traces", "task"}),
        series=4,
        names_version=True,
    ),
)
