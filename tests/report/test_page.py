from __future__ import annotations

import dataclasses
import re

import pandas as pd
import pytest

from opd_diag.plots.quantities import QUANTITIES
from opd_diag.report import sections
from opd_diag.report.figures import Figures
from opd_diag.report.page import report_page
from opd_diag.tables.catalogue import CATALOGUE
from opd_diag.verdicts.titles import title_of
from report.made_up_report import FAILED_SELFTEST, made_up_report, with_precision_floors
from report.strict_html import StrictReader

NO_FIGURES = Figures({}, {}, {}, [])
"""Drawing takes seconds; what is no picture can be read without."""


@pytest.fixture(scope="module")
def page(html) -> StrictReader:
    return StrictReader(html)


def test_is_one_well_formed_document(html, page):
    assert html.startswith("<!DOCTYPE html>")
    assert [tag for tag, _ in page.tags].count("html") == 1
    assert {"main", "header", "nav", "title"} <= {tag for tag, _ in page.tags}


def test_ids_are_unique_and_every_link_within_the_page_leads_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    targets = {a[1:] for a in page.attributes("href") if a.startswith("#")}
    assert len(targets) > 50
    assert targets <= set(page.ids)


def test_svg_references_lead_somewhere(html, page):
    used = set(re.findall(r"url\(#([^)]+)\)", html))
    assert used
    assert used <= set(page.ids)


def test_no_script_at_all(html, page):
    assert "<script" not in html.lower()
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_nothing_is_loaded_from_outside(html, page):
    assert not page.attributes("src")
    links = [a for a in page.attributes("href") if not a.startswith("#")]
    assert {re.sub(r"\d{4}\.\d{4,5}$", "", a) for a in links} == {"data:,", "https://arxiv.org/abs/"}
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_users_text_is_escaped_and_what_hides_is_shown(page):
    assert "<script>alert(1)</script> \"quoted\" 'and' \\x00\\x1b[31m \\ud83d \\u202etxet" in page.text
    assert 'tiny <i>run</i> & "co"' in page.text
    assert "--out 'out <b>&'" in page.text
    assert not set("\x00\x1b\u202e") & set("".join(page.texts))


def test_sections_come_in_order(page):
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == [
        "alarm", "glance", "verdicts", "belief", "concentration", "alignment", "depth", "tails", "entropies",
        "differences", "rollouts", "measured", "definitions", "limitations",
    ]  # fmt: skip


def test_headline_comes_first_with_its_facts(report, page):
    at = [page.text.index(part) for part in (report.headline.title, *report.headline.facts, "Verdicts Status")]
    nav = at.pop()
    assert at == sorted(at)
    assert at[-1] < nav


def test_every_verdict_tells_status_evidence_advice_and_source(report, page):
    for verdict in report.verdicts:
        for part in (verdict.question, verdict.evidence, verdict.advice, verdict.reference):
            assert part in page.text.replace(" ,", ","), part
    assert "! warning" in page.text
    assert "−0.20 [−0.25, −0.15]" in page.text


def test_alarms_are_open_and_the_rest_is_folded(html):
    verdicts = html[html.index('<section id="verdicts"') : html.index('<section id="belief"')]
    at = [verdicts.index(sign) for sign in ("✗</span>fail", "!</span>warning", "<details><summary><span class")]
    assert at == sorted(at)
    folded = verdicts[at[2] :]
    assert "1 question that the data cannot answer: entropy gap</summary>" in folded
    assert "1: alignment on own states</summary>" in folded
    assert "Do shared tokens carry the probability?" not in folded


def test_the_run_its_students_and_its_teacher_are_told_apart(report):
    """Also where the teacher has the name of the run."""
    same = dataclasses.replace(report, run="teacher", selftests=[*report.selftests, dataclasses.replace(
        FAILED_SELFTEST, model="teacher")])  # fmt: skip
    page = StrictReader(report_page(same, NO_FIGURES))
    assert "run: teacher students: step 0 to step 100, 5 checkpoints · teacher: teacher · 2026-10-12" in page.text


def test_verdicts_are_called_by_their_titles(report, page):
    """Rules keep the name that machines read."""
    assert "Does it hold at the start's states? alignment at the start's states −0.20" in page.text
    assert "Rule alignment_at_start , held against 0" in page.text


def test_without_an_alarm_what_passes_is_open(report):
    html = report_page(dataclasses.replace(report, verdicts=report.verdicts[1:2]), NO_FIGURES)
    verdicts = html[html.index('<section id="verdicts"') : html.index('<section id="belief"')]
    assert "<p>No alarm.</p>" in verdicts
    assert "<details open>" in verdicts


def test_without_an_alarm_what_nobody_can_tell_is_open_and_what_passes_is_named(report):
    verdicts = [v for v in report.verdicts if v.status in ("pass", "unknown")]
    html = report_page(dataclasses.replace(report, verdicts=verdicts), NO_FIGURES)
    shown = html[html.index('<section id="verdicts"') : html.index('<section id="belief"')]
    assert shown.count("<details open>") == 1
    assert shown.index("<details open>") < shown.index("1 question that the data cannot answer")
    assert 'href="#def-delta"' in shown


def test_a_policy_change_is_as_clear_as_the_change_at_the_start_s_states_which_it_is(tmp_path):
    """Its interval alone knows nothing of the other metrics that were looked at."""
    made = made_up_report(tmp_path)
    at_start = made.tables.differences["states"] == "start"

    def policy(p: float) -> sections.Part | None:
        differences = made.tables.differences.copy()
        differences.loc[at_start, "p_adjusted"] = p
        tables = dataclasses.replace(made.tables, differences=differences)
        found = sections.splits(dataclasses.replace(made, tables=tables))
        return next(s.policy for s in found if s.metric == "reverse_kl")

    sure, unsure = policy(0.01), policy(0.2)
    assert (sure.clear, unsure.clear) == (True, False)
    assert unsure.note == "adjusted p 0.20"
    assert unsure.difference == sure.difference


def test_parts_of_a_change_are_rough_where_the_split_says_so(tmp_path):
    made, seen = made_up_report(tmp_path), 0
    table = made.tables.split
    rough = table.assign(approximate=table["part"] == "state_change")
    splits = sections.splits(dataclasses.replace(made, tables=dataclasses.replace(made.tables, split=rough)))
    for split in splits:
        if split.own and split.state:
            assert "~[" in split.state.difference
            assert "~" not in f"{split.own.difference}{split.policy.difference}"
            seen += 1
    assert seen > 30


def test_a_caution_is_one_click_away(report):
    verdict = dataclasses.replace(report.verdicts[0], caution="Reads <b>one</b> order alone.")
    page = StrictReader(report_page(dataclasses.replace(report, verdicts=[verdict]), NO_FIGURES))
    assert "How it misleads: Reads <b>one</b> order alone." in page.text


def test_self_tests_are_told_under_the_headline_and_in_full_below(report, page):
    assert page.text.count("All 2 self-tests pass; 1 could not be asked") == 2
    assert "It fits best unshifted: 0.52 nats" in page.text
    asked = dataclasses.replace(report, selftests=[*report.selftests, FAILED_SELFTEST])
    failed = StrictReader(report_page(asked, NO_FIGURES))
    said = "1 of 3 self-tests failed: student and teacher at the same token"
    assert failed.text.index(said) < failed.text.index("Read this before the curves")
    below = failed.text[failed.text.index("Can the numbers be believed?") :]
    assert below.index("It fits best shifted by 1") < below.index("It fits best unshifted")
    assert "Look at the template." in below


def test_what_depends_on_the_average_is_said_where_it_stands(page):
    assert "Forward KL, own states: −1.00 over tokens, +0.40 over rollouts, +0.50 over prompts." in page.text
    row = page.text[page.text.index("First → last, own states") :]
    row = row[row.index("Forward KL nats") : row.index("Policy change", row.index("Forward KL nats") + 1)]
    assert "closer adjusted p 0.012, depends on the average" in row


def test_primary_metrics_are_open_and_the_others_folded(html):
    section = html[html.index('<section id="differences"') : html.index('<section id="rollouts"')]
    first, other = section.split("other metrics</summary>")
    primary = {m.name for m in CATALOGUE if m.primary}
    opened = set(re.findall(r'<th scope="row"><a class="term" href="#def-(\w+)"', first))
    folded = set(re.findall(r'<th scope="row"><a class="term" href="#def-(\w+)"', other))
    assert primary <= opened
    assert not primary & (folded - opened - {"overlap_ratio", "reverse_kl"})
    assert {"student_entropy", "top1_agreement", "shared_gradient_ratio"} <= folded
    assert len(opened) < 14 < len(folded)


def test_baselines_strata_fits_and_ends_of_responses_are_on_the_page(page):
    for said in (
        "Between chance and agreement, own states, k = 16 Metric chance shuffled teacher step 0 step 100",
        "By correctness of the response, own states of step 100",
        "How responses end and repeat Metric step 0 step 100 teacher's responses",
        "Own states Fitted temperature τ* : 1.31 [1.24, 1.38] at step 0, 1.04 [0.98, 1.10] at step 100 "
        "(32 prompts, 2,560 states). No temperature would bring the student clearly nearer",
        "Gradient coherence : 0.21",
        "worth 288 independent ones",
    ):
        assert said in page.text, said


def test_rough_intervals_are_marked_and_the_sign_is_explained(tmp_path, page):
    rough, sound = (
        StrictReader(report_page(made_up_report(tmp_path, prompts=prompts), NO_FIGURES)) for prompts in (12, 32)
    )
    assert "~[" in rough.text
    assert "~ before an interval: too few prompts" in rough.text
    assert "~[" not in sound.text
    assert "before an interval: too few" not in sound.text
    assert "~[" in page.text, "what the farthest hold, by a jackknife over uneven prompts"
    assert "~ before an interval: too few prompts" in page.text


def test_tables_of_older_reports_make_a_page_too(tmp_path):
    made = made_up_report(tmp_path)
    new, bands = ["n_effective", "approximate", "band_low", "band_high"], ["band_low", "band_high"]
    differences = ["p_value", "p_adjusted", "approximate", "depends_on_average", "n_states"]
    bare = dict.fromkeys(("averages", "baselines", "strata"), pd.DataFrame())
    tables = dataclasses.replace(
        made.tables,
        summary=made.tables.summary.drop(columns=new),
        depth=made.tables.depth.drop(columns=bands),
        concentration=made.tables.concentration[[c for c in made.tables.concentration if "_band_" not in c]],
        split=made.tables.split.drop(columns="approximate"),
        differences=made.tables.differences.drop(columns=differences),
        **bare,
    )
    page = StrictReader(dataclasses.replace(made, tables=tables, selftests=()).write().read_text(encoding="utf-8"))
    assert page.text.count("No self-test was made") == 2
    for absent in ("chance", "adjusted p", "independent ones at", "lighter shade around own states", "By correctness"):
        assert absent not in page.text[: page.text.index("Definitions p is the")], absent


def test_every_figure_is_named_and_read(page):
    drawings = [attrs for tag, attrs in page.tags if tag == "svg" and attrs["class"] == "plot"]
    assert len(drawings) == 3 + 9 + 19 + 3 + 9 + 3 + 4
    assert all(d["role"] == "img" and len(d["aria-label"]) > 40 for d in drawings)
    assert [tag for tag, _ in page.tags].count("figcaption") == len(drawings)


def test_every_metric_is_defined_and_linked(page):
    for name, what in QUANTITIES.items():
        assert f"def-{name}" in page.ids
        assert f"#def-{name}" in page.attributes("href")
        assert what.caution in page.text


def test_broken_checkpoints_are_named_with_the_way_out(page):
    assert "step 60 : model.safetensors is cut off after 1,024 of 9,216 bytes. Copy it again" in page.text


def test_responses_stand_side_by_side(page):
    assert page.text.count("Prompt gsm-") == 4
    assert "step 0 · ✗ wrong · 61 tokens, cut at the length limit" in page.text
    assert "96,000 more characters are in rollouts/" in page.text
    assert "(no text)" in page.text
    assert set(page.attributes("dir")) == {"auto", "ltr"}


def test_difference_splits_into_policy_and_state_change(page):
    row = page.text[page.text.index("First → last, own states") :]
    own, policy, state = (
        r"\+0.40 \[[^]]*\] closer adjusted p 0.012",
        r"−0.20 \[−0.23, −0.17\] adjusted p 0.012",
        r"\+0.60 \[",
    )
    assert re.search(f"Overlap ratio ratio 0.34 → 0.74 {own} {policy} {state}", row)
    assert "Orders differ by" not in page.text


def test_both_orders_are_told_where_both_were_taken(report):
    split = report.tables.split
    both = split[split["part"] == "state_change"].assign(part="order_difference", value=0.07, ci_low=0.05, ci_high=0.09)
    tables = dataclasses.replace(report.tables, split=pd.concat([split, both], ignore_index=True))
    page = StrictReader(report_page(dataclasses.replace(report, tables=tables), NO_FIGURES))
    assert "Orders differ by" in page.text
    assert "+0.07 [+0.05, +0.09]" in page.text
    assert "counted as state change" not in page.text


def test_a_false_success_is_told_before_the_curves(tmp_path):
    report = made_up_report(tmp_path, "collapse")
    page = StrictReader(report_page(report, NO_FIGURES))
    alarm = page.text[page.text.index("Read this before the curves") : page.text.index("Shared tokens Over training")]
    assert all(part in alarm for part in report.verdicts[0].evidence.rstrip(".").split("; "))
    assert "Do not believe the curves on own states." in alarm
    first, last = list(report.excerpts)[:2]
    # the first prompt goes well at the end, the second does not
    assert report.excerpts[last][0].response_text.split("\n")[1] not in alarm
    assert report.excerpts[first][1].prompt_text.split("?")[0] in alarm
    assert report.excerpts[last][1].response_text in alarm
    assert report.excerpts["teacher"][1].response_text not in alarm
    assert alarm.count("tokens, ") == 2  # two responses, with length and end


def test_without_responses_the_alarm_stands_alone(tmp_path):
    report = dataclasses.replace(made_up_report(tmp_path, "collapse"), excerpts={})
    page = StrictReader(report_page(report, NO_FIGURES))
    assert "Read this before the curves" in page.text
    assert "answered before the training" not in page.text


def test_no_alarm_on_a_healthy_run(tmp_path):
    page = StrictReader(report_page(made_up_report(tmp_path), NO_FIGURES))
    assert "Read this before the curves" not in page.text


def test_same_report_same_page(report, html, tmp_path):
    again = dataclasses.replace(report, out_dir=tmp_path)
    assert again.write().read_text(encoding="utf-8") == html


LEGEND = "within twice the precision floor: not told from rounding"


@pytest.fixture(scope="module")
def marked(tmp_path_factory) -> StrictReader:
    report = with_precision_floors(made_up_report(tmp_path_factory.mktemp("marked"), "healthy"))
    return StrictReader(report.write().read_text(encoding="utf-8"))


def test_values_within_twice_their_floor_are_marked_and_others_are_not(marked):
    row = marked.text[marked.text.index("First → last, own states") :]
    row = row[row.index("Reverse KL nats") : row.index("Forward KL nats")]
    assert "2.10 → ≈0.31" in row
    assert "−1.79 [" in row
    assert "≈−1.79" not in row
    assert "Reverse KL : 2.10 → ≈0.31 on own states, difference −1.79 [" in re.sub(r"\s+", " ", marked.text)
    assert "at positions 80–95" in marked.text
    assert "≈0.25 [0.14, 0.36] at positions 80–95" in marked.text


def test_changes_within_two_floors_are_marked_and_never_clear(marked):
    row = marked.text[marked.text.index("First → last, own states") :]
    row = row[row.index("Student entropy nats") : row.index("Teacher entropy nats")]
    assert "2.60 → 1.30 ≈−1.30 [" in row  # the entropy itself is near no agreement
    assert "no clear change" in row
    assert "fell" not in row


def test_the_sign_is_explained_where_it_occurs_and_only_there(marked, page):
    assert marked.text.count(LEGEND) == 3  # under the verdicts, over the curves, over the table
    assert LEGEND not in page.text
    assert "≈0.40 [0.35, 0.45]" in marked.text  # of a verdict


def test_the_floor_is_told_in_both_its_parts(marked):
    text = re.sub(r"\s+", " ", marked.text)
    assert (
        "Precision floor: float32 against float64 a model scored against itself is off by 0.2 in reverse KL, 0.001 in "
        "overlap ratio (the larger of step 0 and the teacher; 512 states)"
    ) in text
    assert "Precision floor: together against alone a model scored against itself is off by 3e−09 in reverse KL" in text


def test_notebooks_mark_what_is_within_the_floor(tmp_path):
    shown = StrictReader(with_precision_floors(made_up_report(tmp_path))._repr_html_())
    assert "≈0.31 [0.27, 0.35]" in shown.text
    assert LEGEND in shown.text
    assert "≈" not in StrictReader(made_up_report(tmp_path)._repr_html_()).text


def test_notebooks_show_headline_verdicts_and_numbers(report):
    shown = report._repr_html_()
    page = StrictReader(shown)
    assert "<script" not in shown
    for part in (report.headline.title, report.verdicts[2].evidence, "Reverse KL (nats)", "−0.20 [−0.23, −0.17]"):
        assert part in page.text
    assert f"✓ pass: {title_of(report.verdicts[1].name)}" in page.text  # what passes is named alone
    assert report.verdicts[1].evidence not in page.text
    assert "All 2 self-tests pass; 1 could not be asked." in page.text
    assert len(shown) < 20_000
