"""Titles: one for every verdict, each its own, and none that gives the answer away."""

from __future__ import annotations

from opd_diag.verdicts import DEFAULTS, judge
from opd_diag.verdicts.cold_start import cold_start_effect, cold_start_needed, sft_data
from opd_diag.verdicts.comparison import runs_differ
from opd_diag.verdicts.continuing import continuation_advantage
from opd_diag.verdicts.horizon import depth_signal, instability
from opd_diag.verdicts.outcomes import gap_recovered, pass_at_k
from opd_diag.verdicts.prompt_sets import set_alignment
from opd_diag.verdicts.prompts import selection_alignment, selection_entropy, selection_groups, selection_lead
from opd_diag.verdicts.teachers import pulled_back, teachers_alike
from opd_diag.verdicts.titles import TITLES, title_of

from .synthetic import run
from .test_cold_start import CLOSED, responses
from .test_comparison import row as difference
from .test_continuing import LASTS, attempts
from .test_outcomes import HALF, MOST, drawn, of_items
from .test_prompts import BY_MASS, chosen_of, held
from .test_teachers import ROWS, row

PAIR = drawn(first=HALF, last=MOST)
OF_STUDIES = [
    pass_at_k(PAIR, "first", "last", DEFAULTS),
    of_items(PAIR),
    gap_recovered(PAIR, "first", "last", "teacher"),
    cold_start_needed(run(), DEFAULTS),
    cold_start_effect(run(), DEFAULTS, CLOSED),
    sft_data(responses(), DEFAULTS),
    depth_signal([], 1, DEFAULTS),
    instability([], ["step 0"], 1, DEFAULTS),
    continuation_advantage(attempts((90, 40), LASTS), DEFAULTS),
    runs_differ(difference(0.0, -1.0, 1.0), DEFAULTS),
    teachers_alike(row(), DEFAULTS),
    pulled_back("big", "past", ROWS, None, DEFAULTS),
    selection_alignment(held(), BY_MASS, DEFAULTS),
    selection_entropy(held(), BY_MASS, DEFAULTS),
    selection_lead(held(), DEFAULTS),
    selection_groups(chosen_of(a=(10, 10), b=(10, 10)), DEFAULTS),
    *(set_alignment(name, held(), "one", "two", DEFAULTS, is_paired=True) for name in ("template", "prompt_set")),
]
NAMES = [v.name for v in (*judge(run(), step_zero_known=True), *OF_STUDIES)]


def test_every_verdict_has_a_title_of_its_own_and_every_title_a_verdict():
    assert sorted(TITLES) == sorted(NAMES)
    assert len(set(TITLES.values())) == len(NAMES)
    assert all(title_of(name) == TITLES[name] for name in NAMES)


def test_titles_fit_into_a_sentence():
    for title in TITLES.values():
        assert title == title.strip(" .?!").lower()
        assert "_" not in title
        assert len(title) <= 40
