"""Choosing prompts: by hand where ranks are known, and by draws in which all merit is chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.errors import InputError
from opd_diag.tables.prompts import ABOUT, PROMPT_COLUMNS, QUANTITIES, prompt_table
from opd_diag.tables.selection import (
    SELECTION_COLUMNS,
    Choice,
    choose,
    floor_of,
    held_out_comparison,
)


def prompts(mass, entropy=None, lead=None):
    """Give a prompt table whose means are known exactly."""
    n = len(mass)
    table = pd.DataFrame({name: [math.nan] * n for name in PROMPT_COLUMNS})
    table["prompt_index"], table["n_rollouts"] = np.arange(n), 2
    table["prompt_id"], table["group"] = [f"p{i}" for i in range(n)], None
    columns = {
        "student_overlap_mass": mass,
        "student_entropy": entropy if entropy is not None else np.linspace(1, 2, n),
        "teacher_lead": lead if lead is not None else [math.nan] * n,
    }
    for name, values in columns.items():
        table[name] = table[f"{name}_shrunken"] = np.asarray(values, float)
        table[f"{name}_ci_low"], table[f"{name}_ci_high"] = table[name] - 0.01, table[name] + 0.01
    return table


MASS = [0.5, 0.9, 0.7, 0.8, 0.6, 0.95, 0.4, 0.3, 0.2, 0.1]


def refusal(table, choice):
    with pytest.raises(InputError) as caught:
        choose(table, choice)
    return str(caught.value)


class TestChoose:
    def test_the_first_in_rank(self):
        found = choose(prompts(MASS), Choice(3, "student_overlap_mass", out_of_distribution=0.0))
        assert list(found.columns) == SELECTION_COLUMNS
        assert found.loc[found["is_chosen"], "prompt_id"].tolist() == ["p1", "p3", "p5"]
        assert found["rank"].tolist() == [6, 2, 4, 3, 5, 1, 7, 8, 9, 10]
        assert found["reason"].tolist()[:2] == [
            "left out: student entropy 1.000 is below the floor 1.100, rank 6 of 10",
            "chosen: student overlap mass 0.90 [0.89, 0.91], rank 2 of 10",
        ]
        assert found["reason"][2] == "left out: student overlap mass 0.70 [0.69, 0.71], rank 4 of 10"

    def test_a_share_is_drawn_from_the_rest(self):
        choice = Choice(5, "student_overlap_mass", out_of_distribution=0.4, seed=3)
        found = choose(prompts(MASS), choice)
        top, drawn = (found[found["outcome"] == of] for of in ("top", "drawn"))
        assert top["rank"].tolist() == [2, 3, 1]
        assert len(drawn) == 2
        assert (drawn["rank"] > 3).all()
        assert (drawn["prompt_id"] != "p0").all()  # below the floor
        rank = drawn["rank"].iloc[0]
        assert drawn["reason"].iloc[0] == (
            f"kept against entropy collapse: drawn at random from the rest, rank {rank} of 10"
        )

    def test_the_draw_hangs_on_the_seed_alone(self):
        table = prompts(np.linspace(0, 1, 60))
        choices = [
            choose(table, Choice(30, "student_overlap_mass", out_of_distribution=0.5, seed=s)) for s in (1, 1, 2)
        ]
        assert choices[0].equals(choices[1])
        assert not choices[0].equals(choices[2])

    def test_every_prompt_of_the_rest_is_drawn_about_as_often(self):
        table, counts = prompts(MASS), np.zeros(10)
        for seed in range(150):
            found = choose(table, Choice(5, "student_overlap_mass", 0.0, out_of_distribution=0.4, seed=seed))
            counts += (found["outcome"] == "drawn").to_numpy()
        assert counts[[1, 3, 5]].tolist() == [0, 0, 0]
        rest = counts[[0, 2, 4, 6, 7, 8, 9]]
        assert rest.sum() == 300
        assert np.abs(rest - 300 / 7).max() < 4.5 * math.sqrt(150 * 2 / 7 * 5 / 7)

    def test_the_floor_leaves_out_the_first_in_rank(self):
        entropy = [2.0] * 10
        entropy[5] = 0.1
        found = choose(prompts(MASS, entropy), Choice(2, "student_overlap_mass", 0.5, out_of_distribution=0.0))
        assert found.loc[found["is_chosen"], "prompt_id"].tolist() == ["p1", "p3"]
        assert found["reason"][5] == "left out: student entropy 0.100 is below the floor 0.500, rank 1 of 10"

    def test_the_default_floor_gives_way_where_more_are_asked_for(self):
        table = prompts(MASS)
        assert floor_of(table, Choice(3, "student_overlap_mass")) == pytest.approx(1.1)
        assert floor_of(table, Choice(10, "student_overlap_mass")) == 1.0
        assert choose(table, Choice(10, "student_overlap_mass"))["is_chosen"].all()

    def test_equal_ranks_go_by_their_own_mean_then_by_lot(self):
        table = prompts([0.5, 0.5, 0.6, 0.5], entropy=[1.0] * 4)
        table["student_overlap_mass_shrunken"] = 0.5  # all variance is chance
        ranks = [
            choose(table, Choice(2, "student_overlap_mass", out_of_distribution=0.0, seed=seed))["rank"].tolist()
            for seed in range(40)
        ]
        assert all(of[2] == 1 for of in ranks)
        assert {place for place in range(4) for of in ranks if of[place] == 2} == {0, 1, 3}

    def test_prompts_without_the_quantity_are_not_ranked(self):
        table = prompts(MASS, lead=[0.5, math.nan, 1.0, math.nan, *[0.0] * 6])
        found = choose(table, Choice(2, "teacher_lead", 0.0, out_of_distribution=0.0))
        assert found.loc[found["is_chosen"], "prompt_id"].tolist() == ["p0", "p2"]
        assert found["outcome"].tolist()[1] == "not ranked"
        assert pd.isna(found["rank"][1])
        assert found["reason"][1] == "left out: teacher lead is not known"

    def test_more_than_there_are(self):
        assert refusal(prompts(MASS), Choice(11, "student_overlap_mass")) == (
            "--select 11 is more than the 10 prompts there are. Select fewer."
        )

    def test_more_than_can_be_ranked(self):
        table = prompts(MASS, lead=[0.5, 1.0, *[math.nan] * 8])
        assert refusal(table, Choice(3, "teacher_lead")) == (
            "--select 3 is more than the 2 of 10 prompts that teacher_lead is known of. Select fewer, give answers and "
            "a teacher that answers, or rank by another quantity with --by."
        )

    def test_all_solved_or_none(self):
        assert refusal(prompts(MASS, lead=[0.0] * 10), Choice(3, "teacher_lead")) == (
            "Every prompt has the same teacher_lead, 0.00, so it ranks none. Student and teacher solve all prompts "
            "alike, or none. Rank by another quantity with --by."
        )

    def test_a_floor_that_too_few_reach(self):
        assert refusal(prompts(MASS), Choice(3, "student_overlap_mass", min_entropy=1.9)) == (
            "Only 1 of 10 prompts have a student entropy of --min-entropy 1.9 nats, fewer than --select 3. Lower it, "
            "or select fewer."
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"select": 0}, "Option select must be at least 1, found 0."),
        (
            {"by": "overlap_ratio"},
            "Option by must be one of teacher_lead, reverse_kl_of_response, student_overlap_mass, found "
            "'overlap_ratio'.",
        ),
        ({"out_of_distribution": 1.5}, "Option out_of_distribution must be 0 to 1, found 1.5."),
        ({"min_entropy": -1.0}, "Option min_entropy must be 0 or more, found -1.0."),
        ({"min_entropy": math.nan}, "Option min_entropy must be 0 or more, found nan."),
    ],
)
def test_what_is_out_of_range_is_refused(wrong, message):
    with pytest.raises(InputError) as caught:
        Choice(**{"select": 3, "by": "student_overlap_mass"} | wrong)
    assert str(caught.value) == message


def values(masses):
    """Give the values of responses, (prompts, responses) masses; everything else is alike."""
    rows = [
        {"prompt_index": p, "prompt_id": str(p), "group": None, "rollout_index": r}
        | dict.fromkeys(QUANTITIES, 0.5)
        | {"student_overlap_mass": mass, "student_entropy": 1.0}
        for p, of in enumerate(masses)
        for r, mass in enumerate(of)
    ]
    return pd.DataFrame(rows)[[*ABOUT, "rollout_index", *QUANTITIES]]


class TestHeldOut:
    CHOICE = Choice(40, "student_overlap_mass", out_of_distribution=0.0)

    def test_where_all_merit_is_chance_the_chosen_are_no_better(self):
        """What chose them says they are: the winner's curse that holding out takes away."""
        covered = 0
        for seed in range(20):
            drawn = values(np.random.default_rng(seed).normal(0.5, 0.1, (200, 4)))
            difference = held_out_comparison(drawn, self.CHOICE)["student_overlap_mass"][2]
            covered += difference.ci_low <= 0 <= difference.ci_high
            table = prompt_table(drawn)
            picked = choose(table, self.CHOICE)["is_chosen"]
            cursed = (
                table.loc[picked, "student_overlap_mass"].mean() - table.loc[~picked, "student_overlap_mass"].mean()
            )
            assert cursed > 0.06
            assert abs(difference.value) < 0.05
        assert covered >= 17

    def test_where_prompts_differ_it_is_their_difference(self):
        rng = np.random.default_rng(0)
        true = np.repeat([0.9, 0.5], [40, 160])
        drawn = values(true[:, None] + rng.normal(0, 0.02, (200, 4)))
        others, chosen, difference = held_out_comparison(drawn, self.CHOICE)["student_overlap_mass"]
        assert chosen.value == pytest.approx(0.9, abs=0.01)
        assert others.value == pytest.approx(0.5, abs=0.01)
        assert difference.value == pytest.approx(0.4, abs=0.01)
        assert difference.ci_low > 0.38
        assert (chosen.n_clusters, others.n_clusters) == (40, 160)

    def test_one_response_to_each_prompt_leaves_nothing_to_judge_by(self):
        _, chosen, difference = held_out_comparison(values(np.random.default_rng(0).random((60, 1))), self.CHOICE)[
            "student_overlap_mass"
        ]
        assert chosen.n == 0
        assert math.isnan(difference.value)

    def test_where_all_are_chosen_there_are_no_others(self):
        _, chosen, difference = held_out_comparison(values(np.random.default_rng(0).random((40, 2))), self.CHOICE)[
            "student_overlap_mass"
        ]
        assert chosen.n_clusters == 40
        assert math.isnan(difference.value)

    def test_a_floor_that_a_half_does_not_reach_gives_way(self):
        drawn = values(np.random.default_rng(0).random((60, 4)))
        drawn["student_entropy"] = np.random.default_rng(1).normal(1.0, 0.2, len(drawn))
        choice = Choice(40, "student_overlap_mass", min_entropy=1.2)
        assert held_out_comparison(drawn, choice)["student_overlap_mass"][1].n_clusters == 40


def test_a_lead_on_a_few_chosen_prompts_that_both_solve_is_not_sure():
    drawn = values(np.random.default_rng(0).random((12, 4))).assign(
        accuracy=1.0, teacher_accuracy=1.0, teacher_lead=0.0
    )
    chosen = Choice(6, "student_overlap_mass", out_of_distribution=0.0)
    lead = held_out_comparison(drawn, chosen)["teacher_lead"][1]
    least = 1.959964**2 / (6 + 1.959964**2)  # what six prompts of which none changes leave open
    assert (lead.value, lead.n_clusters) == (0.0, 6)
    assert (lead.ci_low, lead.ci_high) == (pytest.approx(-least), pytest.approx(least))
