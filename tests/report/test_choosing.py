"""Which responses are shown token by token: by hand, on a few states each."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from opd_diag.report.choosing import parts_of, row_means, shown_parts, worst_prompts
from opd_diag.tables.depth import FEWEST_PROMPTS

INF, NAN = math.inf, math.nan


def part(*responses, label="step 9", step=9, states="on-policy", prompts=None, terminal=()):
    """Scores and rollouts of responses, each a list of its states' reverse KL; and a prompt each, or as told."""
    rows = [(row, at, kl) for row, values in enumerate(responses) for at, kl in enumerate(values)]
    rollout, position, kl = (np.array(column) for column in zip(*rows, strict=True))
    scores = SimpleNamespace(
        rollout=rollout,
        position=position,
        reverse_kl=kl.astype(np.float32),
        terminal=np.isin(np.arange(len(rows)), terminal),
        provenance={"states": states, "student": {"label": label, "step": step}},
    )
    prompts = range(len(responses)) if prompts is None else prompts
    return scores, [SimpleNamespace(prompt_index=prompt, prompt_id=f"p{prompt}") for prompt in prompts]


def chosen(*scored, depth=None):
    """By checkpoint and state set, (row, why) of every choice."""
    return {
        (of.label, of.states): [(choice.row, choice.why) for choice in choices]
        for of, choices in shown_parts(parts_of(scored), depth)
    }


def links(*scored, depth=None):
    """By picture, the links in their order: text, row and position of the state."""
    found = []
    for of, choices in shown_parts(parts_of(scored), depth):
        for choice in choices:
            if choice.picture:
                where = (choice.row, int(of.scores.position[choice.at]))
                found.append((choice.picture, choice.place, choice.text, where))
    return [(picture, text, where) for picture, _, text, where in sorted(found)]


def cells(*rows, states="on-policy"):
    """Rows of the depth table: (label, low, high, value, prompts)."""
    table = pd.DataFrame(rows, columns=["label", "depth_low", "depth_high", "value", "n_prompts"])
    return table.assign(metric="reverse_kl", states=states)


WORST = ("highest mean reverse KL", "the farthest single state", "the state at p99", "of a worst prompt", "middling")

THREE = ([1.0, 1.0, 1.0], [0.0, 0.0, 5.0], [2.0, 2.0, 2.0])
"""Means 1, 5/3 and 2; the farthest state is the last of the second."""


def test_the_worst_the_farthest_that_at_p99_of_the_worst_prompts_and_a_middling_one():
    found = chosen(part(*THREE))
    assert found == {
        ("step 9", "on-policy"): [
            (2, WORST[0]), (1, WORST[1]), (1, WORST[2]), (2, WORST[3]), (1, WORST[3]), (0, WORST[3]), (1, WORST[4]),
        ]
    }  # fmt: skip


def test_p99_is_no_maximum_where_there_are_more_than_a_hundred_states():
    """Of 200 states, 1 to 200 in turn, 198 is exceeded by two."""
    values = np.arange(1.0, 201.0).reshape(40, 5)
    assert links(part(*values)) == [("tails-on-policy", "p99 at step 9", (39, 2))]


def test_where_the_mean_of_all_responses_to_a_prompt_is_highest():
    """The first prompt has the farthest response, the second the higher mean: 2 against (3 + 0) / 2."""
    scored = part([3.0], [0.0], [2.0], [1.5, 2.5], prompts=[0, 0, 1, 1])
    (of,) = parts_of([scored])
    assert [(p.prompt_index, p.value, p.rows) for p in worst_prompts(of)] == [(1, 2.0, (2, 3)), (0, 1.5, (0, 1))]
    found = chosen(scored)["step 9", "on-policy"]
    assert found[0] == (0, WORST[0])
    assert [row for row, why in found if why == WORST[3]] == [2, 0]  # the worst of each; of equal ones the first


def test_three_worst_prompts_are_read_at_most():
    found = chosen(part(*([float(value)] for value in range(9))))["step 9", "on-policy"]
    assert [row for row, why in found if why == WORST[3]] == [8, 7, 6]


def test_each_response_counts_alike_in_the_mean_of_a_prompt():
    (of,) = parts_of([part([4.0], [1.0] * 9, prompts=[0, 0])])
    assert worst_prompts(of)[0].value == 2.5


def test_undefined_and_terminal_states_count_for_nothing():
    scores, _ = part([NAN, 2.0, 9.0], [NAN], [1.0], terminal=[2])
    rows, means = row_means(scores)
    assert (rows.tolist(), means.tolist()) == ([0, 2], [2.0, 1.0])
    assert chosen(part([NAN, NAN])) == {("step 9", "on-policy"): []}


def test_infinite_states_are_the_farthest():
    found = chosen(part([1.0, 2.0], [0.0, INF], [3.0, 3.0]))["step 9", "on-policy"]
    assert found[:3] == [(1, WORST[0]), (1, WORST[1]), (1, WORST[2])]


def test_the_last_checkpoint_on_every_set_and_the_first_on_its_own():
    first = {"label": "step 0", "step": 0}
    found = chosen(
        part([1.0], **first), part([1.0], **first, states="start"), part([1.0], label="step 5", step=5),
        part([1.0]), part([1.0], states="start"), part([1.0], states="teacher"), part([1.0], states="back"),
    )  # fmt: skip
    assert list(found) == [
        ("step 9", "on-policy"), ("step 9", "start"), ("step 9", "teacher"), ("step 0", "on-policy"),
    ]  # fmt: skip
    assert [why for _, why in found["step 9", "start"]] == list(WORST[:3])
    assert [why for _, why in found["step 0", "on-policy"]] == [*WORST[:3], "middling"]


def test_of_one_checkpoint_the_starts_states_are_its_own():
    assert list(chosen(part([1.0]), part([1.0], states="start"))) == [("step 9", "on-policy")]


EARLY = part([9.0, 9.0, 1.0, 1.0], [7.0, 1.0, 8.0, 8.0], label="step 5", step=5)
LATE = part([1.0, 1.0, 3.0, 1.0], [1.0, 4.0, 2.0, 3.0])


class TestPeaks:
    DEPTH = cells(
        ("step 5", 0, 2, 6.5, 9), ("step 5", 2, 4, 6.6, 9), ("step 9", 0, 2, 1.75, 9), ("step 9", 2, 4, 2.25, 9),
    )  # fmt: skip

    def test_the_response_and_the_state_that_are_highest_in_the_cell(self):
        """In the peak the second response has 8 and 8; at step 9 its 2 and 3 are more than the other's 3 and 1."""
        found = [of for of in links(EARLY, LATE, depth=self.DEPTH) if of[0].startswith("depth")]
        assert found == [
            ("depth-reverse_kl-on-policy", "highest, step 5, positions 2–3", (1, 2)),
            ("depth-reverse_kl-on-policy", "highest of step 9, positions 2–3", (1, 3)),
        ]

    def test_where_the_peak_is_at_the_last_checkpoint_there_is_one_link(self):
        found = links(EARLY, LATE, depth=self.DEPTH.assign(value=[1.0, 1.0, 9.0, 1.0]))
        assert [text for picture, text, _ in found if picture.startswith("depth")] == ["highest, step 9, positions 0–1"]

    def test_a_checkpoint_between_is_shown_for_its_peak_alone(self):
        start = part([1.0], label="step 0", step=0)
        found = chosen(start, EARLY, LATE, depth=self.DEPTH)
        assert found["step 5", "on-policy"] == [(1, "farthest at positions 2–3")]

    def test_the_first_checkpoint_on_the_starts_states_is_on_its_own(self):
        label = {"label": "step 0", "step": 0}
        scored = [part([5.0], **label), part([5.0], **label, states="start"), LATE, part([4.0], states="start")]
        depth = cells(("step 0", 0, 1, 5.0, 9), ("step 9", 0, 1, 4.0, 9), states="start")
        found = chosen(*scored, depth=depth)
        assert ("step 0", "start") not in found
        assert found["step 0", "on-policy"][-1] == (0, "farthest at position 0")
        assert ("depth-reverse_kl-start", "highest, step 0, position 0", (0, 0)) in links(*scored, depth=depth)

    @pytest.mark.parametrize(
        "depth",
        [None, cells(("step 9", 0, 2, 9.0, FEWEST_PROMPTS - 1)), cells(("step 9", 90, 99, 9.0, 9)),
         cells(("step 7", 0, 2, 9.0, 9)), cells(("step 9", 0, 2, NAN, 9))],
    )  # fmt: skip
    def test_a_peak_of_few_prompts_or_without_scores_leads_nowhere(self, depth):
        assert [of for of in links(EARLY, LATE, depth=depth) if of[0].startswith("depth")] == []
