"""The token view: which responses, what it says of each token, and that no token breaks the page."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import byte_tokenizer, random_rollouts, wrapped

from opd_diag.inference import score
from opd_diag.records.scores import TENSOR_FIELDS
from opd_diag.records.vocabulary import Token
from opd_diag.report.figures import Figures
from opd_diag.report.maps import map_panel
from opd_diag.report.page import report_page
from opd_diag.report.shown_tokens import Colouring
from opd_diag.report.token_reader import BEST, MOST_CHARACTERS, MOST_OF_CANDIDATES, MOST_TOKENS, _shown_text
from opd_diag.report.tokens import MOST_SHOWN, WORST, _most_of_each, token_view
from opd_diag.tables import depth_table, measure

from .made_up_report import HOSTILE
from .strict_html import StrictReader


@pytest.fixture(scope="module")
def view(scored, tokens):
    return token_view(scored, tokens, k=8)


def test_the_last_checkpoint_everywhere_and_the_first_on_its_own(view):
    assert [g.title for g in view.groups] == [
        "step 9, own states",
        "step 9, the start's states",
        "step 9, the teacher's states",
        "step 0, own states",
    ]


def test_the_worst_the_farthest_and_a_middling_response(view, scored):
    scores, rollouts = scored[2]
    kl = scores.reverse_kl.astype(float)
    means = [kl[(scores.rollout == i) & ~scores.terminal].mean() for i in range(len(rollouts))]
    farthest = scores.rollout[int(np.argmax(np.where(scores.terminal, -1, kl)))]
    shown = {r.anchor: r for r in view.groups[0].rollouts}
    assert "highest mean reverse KL" in shown[f"tokens-0-{int(np.argmax(means))}"].why
    assert "the farthest single state" in shown[f"tokens-0-{farthest}"].why
    assert "middling" in shown[f"tokens-0-{sorted(range(5), key=lambda i: -means[i])[2]}"].why
    for anchor, rollout in shown.items():
        row = int(anchor.rsplit("-", 1)[1])
        assert len(rollout.states) == len(rollouts[row].response_ids)
        assert rollout.mean == f"{means[row]:.3f}"


def test_every_number_of_a_token(view, scored, tokens):
    scores, _ = scored[2]
    rollout = view.groups[0].rollouts[0]
    row = int(rollout.anchor.rsplit("-", 1)[1])
    for position, state in enumerate(rollout.states):
        at = int(np.flatnonzero((scores.rollout == row) & (scores.position == position))[0])
        values = dict(state.values)
        assert values["Reverse KL"] == f"{scores.reverse_kl[at]:.3f} nats"
        advantage = float(scores.teacher_sampled_logprobs[at]) - float(scores.student_sampled_logprobs[at])
        assert values["Advantage of the written token"] == f"{advantage:+.3f} nats".replace("-", "−")
        assert state.negative == (advantage < 0)
        shared = len(set(scores.student_topk_ids[at, :8]) & set(scores.teacher_topk_ids[at, :8]))
        assert values["Overlap ratio at k = 8"] == f"{shared / 8:.3f}"
        assert len(state.student) == len(state.teacher) == BEST
        best = int(scores.teacher_topk_ids[at, 0])
        assert state.teacher[0].shared == (best in set(scores.student_topk_ids[at, :8]))
        if tokens[best].text.startswith("w"):
            assert state.teacher[0].text == tokens[best].text
        assert float(state.teacher[0].probability) == pytest.approx(
            math.exp(scores.teacher_topk_logprobs[at, 0]), abs=6e-4
        )
        assert state.anchor == f"{rollout.anchor}-{position}"


def test_the_farthest_states_are_listed_first_to_last_and_lead_to_their_tokens(view):
    values = [float(f.value) for f in view.farthest]
    assert len(values) == WORST
    assert values == sorted(values, reverse=True)
    anchors = {s.anchor for g in view.groups for r in g.rollouts for s in r.states}
    assert {f.anchor for f in view.farthest} <= anchors
    every = [dict(s.values)["Reverse KL"] for g in view.groups for r in g.rollouts for s in r.states]
    assert values[0] == max(float(v.split()[0]) for v in every)


@pytest.mark.parametrize(
    ("colouring", "value", "shade"),
    [
        (Colouring("", "", "", "", 2.0), 1.0, 50),
        (Colouring("", "", "", "", 2.0), 5.0, 100),
        (Colouring("", "", "", "", 2.0), -1.0, 50),
        (Colouring("", "", "", "", 2.0), math.nan, 0),
        (Colouring("", "", "", "", 0.0), 1.0, 0),
        (Colouring("", "", "", "", 1.0, falling=True), 0.75, 25),
        (Colouring("", "", "", "", 2.0), math.inf, 100),
        (Colouring("", "", "", "", 0.0), math.inf, 100),
    ],
)
def test_shades(colouring, value, shade):
    assert colouring.shade(value) == shade


def with_one(scored, value):
    """The last checkpoint's own states, where the state of least reverse KL in the middling response has another."""
    scores, rollouts = scored[2]
    kl = scores.reverse_kl.copy()
    middling = sorted(range(5), key=lambda i: -kl[(scores.rollout == i) & ~scores.terminal].mean())[2]
    own = np.flatnonzero((scores.rollout == middling) & ~scores.terminal)
    at = own[int(np.argmin(kl[own]))]
    kl[at] = value
    return (replace(scores, reverse_kl=kl), rollouts), f"tokens-0-{middling}", int(scores.position[at])


def test_an_infinite_reverse_kl_comes_first(view, scored, tokens):
    made, anchor, position = with_one(scored, np.inf)
    infinite = token_view([made], tokens, k=8)
    assert (infinite.farthest[0].anchor, infinite.farthest[0].value) == (f"{anchor}-{position}", "∞")
    first = infinite.groups[0].rollouts[0]
    assert (first.anchor, first.mean) == (anchor, "∞")
    assert first.why.startswith("highest mean reverse KL, the farthest single state")
    state = first.states[position]
    assert state.shades["kl"] == 100
    assert dict(state.values)["Reverse KL"] == "∞ nats"
    finite = made[0].reverse_kl[~made[0].terminal & np.isfinite(made[0].reverse_kl)]
    assert infinite.colourings[0].darkest == pytest.approx(np.quantile(finite, 0.99))


def test_an_undefined_reverse_kl_counts_as_nothing(scored, tokens):
    scores, rollouts = scored[2]
    kl = np.where(np.arange(len(scores)) % 3 == 0, scores.reverse_kl, np.nan).astype(np.float32)
    undefined = token_view([(replace(scores, reverse_kl=kl), rollouts)], tokens, k=8)
    shown = [dict(s.values)["Reverse KL"] for r in undefined.groups[0].rollouts for s in r.states]
    known = sorted((v.split()[0] for v in shown if not v.startswith("–")), key=float, reverse=True)
    assert 0 < len(known) < len(shown)
    assert [f.value for f in undefined.farthest][: len(known)] == known[:WORST]
    farthest = scores.rollout[int(np.nanargmax(np.where(scores.terminal, np.nan, kl)))]
    whys = {r.anchor: r.why for r in undefined.groups[0].rollouts}
    assert "the farthest single state" in whys[f"tokens-0-{farthest}"]


def test_tokens_that_would_not_be_seen(scored):
    odd = {i: Token(("\n", "", "\t", "a\u202eb", "x" * 100_000, "\ud800")[i % 6], False) for i in range(200)}
    shown = {s.text for g in token_view(scored, odd, k=8).groups for r in g.rollouts for s in r.states}
    assert shown == {"⏎", "∅", "⇥", "a\\u202eb", "x" * 24 + "…" + "x" * 23, "\\ud800"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<0xF0><0x9F>", "<0xF0><0x9F>"),  # half a character, as the tokenizer's reader gives it
        ("\ufffd", "\\ufffd"),  # a token that is this very sign
        ("\u0301", "◌\u0301"),  # an accent alone
        ("\u0940", "◌\u0940"),  # a vowel sign of Devanagari
        ("\u200d\u200f", "\\u200d\\u200f"),
        ("م\u200dر", "م\u200dر"),
        ("\x00\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f"),
        ("\r\n", "\\x0d⏎"),
        ("\ud83d", "\\ud83d"),
        (" ", " "),
        ("\ud800" * 8, "\\ud800" * 8),  # as many characters as are shown
        ("\ud800" * 99, "\\ud800" * 4 + "…" + "\\ud800" * 3),  # no escape is cut
        ("\u200d" * 99, "\\u200d" * 4 + "…" + "\\u200d" * 3),
        ("a" + "\u202e" * 99 + "b", "a" + "\\u202e" * 3 + "…" + "\\u202e" * 3 + "b"),
        ("a" * 60 + "b" * 60, "a" * 24 + "…" + "b" * 23),
    ],
)
def test_every_token_is_seen(text, shown):
    assert _shown_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 22, "x" * 22),
        ("getElementsByTagNameAndClass", "getElements…meAndClass"),
        ("\U000e0001" * 30, "\\U000e0001…\\U000e0001"),  # the longest escape
    ],
)
def test_of_a_long_candidate_both_ends_are_shown(text, shown):
    assert _shown_text(text, MOST_OF_CANDIDATES) == shown


@given(st.text(max_size=200), st.sampled_from([MOST_CHARACTERS, MOST_OF_CANDIDATES]))
def test_no_token_is_shown_longer_than_its_limit(text, most):
    assert 1 <= len(_shown_text(text, most)) <= most


def test_parts_of_a_character_are_shown_as_their_bytes(scored):
    """From the tokenizer to the page: a byte-level one that has no token for the whole character."""
    tokenizer = byte_tokenizer()
    ids = tokenizer.ids("🎉")
    read = {i: tokenizer.token(ids[i % 4]) for i in range(200)}
    shown = {s.text for g in token_view(scored, read, k=8).groups for r in g.rollouts for s in r.states}
    assert shown == {"<0xF0>", "<0x9F>", "<0x8E>", "<0x89>"}


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("مرحبا بالعالم", "rtl"),
        ("<think> שלום עולם, שלום עולם", "rtl"),
        ("the word مرحبا", "ltr"),
        ("12 + 30", "ltr"),
        ("", "ltr"),
    ],
)
def test_tokens_follow_each_other_as_the_response_is_written(scored, tokens, text, direction):
    scores, rollouts = scored[2]
    written = [replace(rollout, response_text=text) for rollout in rollouts]
    view = token_view([(scores, written)], tokens, k=8)
    assert {r.direction for r in view.groups[0].rollouts} == {direction}


def test_unknown_ids_are_named(scored):
    assert all(s.text.startswith("<id ") for g in token_view(scored, {}, k=8).groups for s in g.rollouts[0].states)


def test_long_responses_are_cut_and_say_so(tokens):
    student, teacher = (wrapped("llama", name=name, seed=i) for i, name in enumerate("st"))
    (long,) = random_rollouts(((2, 80),))
    scores = score(student, teacher, [long])
    wide = replace(
        scores,
        **{name: np.concatenate([getattr(scores, name)] * 3) for name in TENSOR_FIELDS if name != "position"},
        position=np.arange(3 * len(scores)),
    )
    (rollout,) = token_view([(wide, [long])], tokens, k=4).groups[0].rollouts
    assert len(rollout.states) <= MOST_TOKENS
    left_out = rollout.left_out + sum(state.left_out for state in rollout.states)
    assert left_out == int((~wide.terminal).sum()) - len(rollout.states)


def as_long(scores, factor):
    """The scores again and again, at later and later positions."""
    wide = {name: np.concatenate([getattr(scores, name)] * factor) for name in TENSOR_FIELDS if name != "position"}
    longest = int(scores.position.max()) + 1
    position = np.concatenate([scores.position + i * longest for i in range(factor)])
    return replace(scores, **wide, position=position)


def test_of_long_responses_what_is_linked_is_among_what_is_shown(scored, tokens):
    """The farthest state is the last but one of thousands; before it and after it some are left out, and counted."""
    scores, rollouts = scored[2]
    wide = as_long(scores, 500)
    kl = np.zeros(len(wide), dtype=np.float32)
    far = int(np.flatnonzero((wide.rollout == 3) & ~wide.terminal)[-2])
    kl[far] = 50.0
    view = token_view([(replace(wide, reverse_kl=kl), rollouts)], tokens, k=8)
    assert view.farthest[0].value == "50.000"
    shown = {s.anchor for g in view.groups for r in g.rollouts for s in r.states}
    assert view.farthest[0].anchor == f"tokens-0-3-{wide.position[far]}"
    assert view.farthest[0].anchor in shown
    (of,) = [r for r in view.groups[0].rollouts if r.anchor == "tokens-0-3"]
    total = int(np.count_nonzero((wide.rollout == 3) & ~wide.terminal))
    assert of.states[0].left_out + of.left_out + len(of.states) == total
    assert [state.left_out for state in of.states[1:]] == [0] * (len(of.states) - 1)
    assert (of.states[0].left_out, of.left_out) == (total - len(of.states), 0)


def test_all_responses_together_are_bounded(scored, tokens):
    """Eight times four long ones would be ten thousand tokens."""
    longer = [(as_long(scores, 90), rollouts) for scores, rollouts in scored]
    view = token_view(longer, tokens, k=8)
    counts = [len(r.states) for g in view.groups for r in g.rollouts]
    assert MOST_SHOWN // 2 < sum(counts) <= MOST_SHOWN
    assert max(counts) <= MOST_TOKENS


def test_short_responses_leave_their_part_to_long_ones():
    assert _most_of_each([10, 10]) == MOST_TOKENS
    assert _most_of_each([MOST_SHOWN - 50, 40, 10]) == MOST_TOKENS
    assert _most_of_each([1000] * 18) == MOST_SHOWN // 18
    assert _most_of_each([1000] * 16 + [10] * 20) == (MOST_SHOWN - 200) // 16


def test_what_short_ones_leave_is_shared_under_a_smaller_bound_too():
    assert _most_of_each([1000] * 18, 900) == 50
    assert _most_of_each([1000] * 18, 0) == 1


@pytest.fixture(scope="module")
def depth(scored):
    return depth_table(pd.concat([measure(*of, k=8) for of in scored], ignore_index=True))


@pytest.fixture(scope="module")
def led(scored, tokens, depth):
    """The view with links from maps."""
    return token_view(scored, tokens, k=8, depth=depth)


class TestLeads:
    """Links from pictures to tokens."""

    def test_every_link_leads_to_a_token_that_is_shown(self, led):
        anchors = {s.anchor for g in led.groups for r in g.rollouts for s in r.states}
        assert {lead.anchor for leads in led.leads.values() for lead in leads} <= anchors
        assert sorted(led.leads) == [
            *(f"depth-reverse_kl-{states}" for states in ("on-policy", "start", "teacher")),
            *(f"tails-{states}" for states in ("on-policy", "start", "teacher")),
        ]

    def test_the_peak_is_that_of_the_table(self, led, scored, depth):
        """Its first link names the highest cell, and its token is the farthest there of the response farthest there."""
        rows = depth[(depth["metric"] == "reverse_kl") & (depth["states"] == "teacher") & (depth["n_prompts"] >= 5)]
        cell = rows.loc[rows["value"].idxmax()]
        lead = led.leads["depth-reverse_kl-teacher"][0]
        assert lead.text == f"highest, step 9, positions {cell['depth_low']}–{cell['depth_high'] - 1}"
        scores, rollouts = scored[4]
        inside = (scores.position >= cell["depth_low"]) & (scores.position < cell["depth_high"]) & ~scores.terminal
        means = [scores.reverse_kl[inside & (scores.rollout == i)].mean() for i in range(len(rollouts))]
        of_row = inside & (scores.rollout == int(np.argmax(means)))
        at = int(np.argmax(np.where(of_row, scores.reverse_kl, -1)))
        assert lead.anchor == f"tokens-2-{scores.rollout[at]}-{scores.position[at]}"

    def test_the_worst_prompts_are_listed_with_their_responses(self, led, scored):
        scores, rollouts = scored[2]
        kl = scores.reverse_kl.astype(float)
        means = {i: kl[(scores.rollout == i) & ~scores.terminal].mean() for i in range(len(rollouts))}
        order = sorted(means, key=means.get, reverse=True)
        assert [p.value for p in led.prompts] == [f"{means[i]:.3f}" for i in order]
        assert [p.prompt_id for p in led.prompts] == [rollouts[i].prompt_id for i in order]
        shown = {r.anchor for r in led.groups[0].rollouts}
        assert [p.anchor for p in led.prompts] == [f"tokens-0-{i}" if f"tokens-0-{i}" in shown else "" for i in order]
        assert all(p.anchor for p in led.prompts[:3])

    def test_how_many_responses_are_right_is_counted_of_those_that_were_graded(self, scored, tokens):
        scores, rollouts = scored[2]
        marks = (True, False, None, True, None)
        graded = [replace(r, prompt_index=i // 2, is_correct=marks[i]) for i, r in enumerate(rollouts)]
        prompts = token_view([(scores, graded)], tokens, k=8).prompts
        assert {(p.n_responses, p.correct) for p in prompts} == {(2, "1 of 2"), (2, "1 of 1"), (1, "")}


def test_nothing_scored_is_no_view(tokens, scored):
    assert token_view([], tokens, k=8) is None
    back = replace(scored[0][0], provenance=scored[0][0].provenance | {"states": "back"})
    assert token_view([(back, scored[0][1])], tokens, k=8) is None


class TestPage:
    def test_it_is_whole_and_escaped(self, report, scored):
        hostile = {i: Token(HOSTILE if i % 2 else f"<b>{i}</b>", i % 3 == 0) for i in range(200)}
        page = report_page(replace(report, tokens=token_view(scored, hostile, k=8)), Figures({}, {}, {}, []))
        StrictReader(page)
        assert "<script" not in page
        assert "<b>2</b>" not in page
        assert 'id="tokens-0-' in page
        assert '<a href="#tokens">Token by token</a>' in page

    def test_every_link_within_the_page_has_its_target(self, report, led, depth):
        """Those under a map too, and in the list of prompts."""
        picture = map_panel(depth, "on-policy", {}, None)
        figures = Figures({}, {}, {"own states": [picture]}, [])
        page = StrictReader(report_page(replace(report, tokens=led), figures))
        inner = {href[1:] for href in page.attributes("href") if href.startswith("#")}
        assert inner <= {*page.ids}
        linked = [*led.leads[picture.name], *led.farthest, *(p for p in led.prompts if p.anchor)]
        assert {of.anchor for of in linked} <= inner
        assert "Read the tokens: highest, step" in page.text
        assert page.text.count("read a response") == sum(bool(p.anchor) for p in led.prompts)

    def test_without_scores_there_is_no_section(self, report):
        page = report_page(report, Figures({}, {}, {}, []))
        assert 'id="tokens"' not in page
        assert 'href="#tokens"' not in page
