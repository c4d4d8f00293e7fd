from __future__ import annotations

import dataclasses
import re

import pytest

from opd_diag.report.markdown import in_markdown, report_markdown
from report.made_up_report import FAILED_SELFTEST, HOSTILE, made_up_report, with_precision_floors


@pytest.fixture(scope="module")
def text(report) -> str:
    return report_markdown(report)


def test_starts_with_the_headline(text):
    assert text.startswith("### ✗ The student looks aligned only because it goes where agreeing is easy\n")


def test_what_to_do_stands_under_the_facts(report):
    headline = dataclasses.replace(report.headline, advice="Read <them>.")
    told = dataclasses.replace(report, headline=headline)
    written = report_markdown(told)
    assert written.index("**What to do.** Read &lt;them&gt;.") > written.index(in_markdown(headline.facts[-1]))
    assert "**What to do.** Read &lt;them&gt;." not in report_markdown(report)
    assert "<strong>What to do.</strong> Read &lt;them&gt;." in told._repr_html_()


def test_the_run_its_students_and_its_teacher_are_named_after_the_headline(report, text):
    assert text.split("\n\n")[1] == (
        'Run: **tiny &lt;i&gt;run&lt;/i&gt; &amp; "co"**. '
        "Students: step 0 to step 100, 5 checkpoints. Teacher: **teacher**."
    )


def test_tables_have_as_many_cells_in_every_row(text):
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


def test_every_verdict_and_main_metric_is_there(report, text):
    for verdict in report.verdicts:
        if verdict.status != "pass":
            assert in_markdown(verdict.question) in text
    assert "| Reverse KL (nats) | own states | 2.10 [2.01, 2.19] | 0.31 [0.27, 0.35] | −1.79 [−1.82, −1.76] |" in text


def test_alarms_come_first_and_passes_are_one_line(report, text):
    table = text[text.index("| | question") : text.index("| metric |")]
    rows = [line for line in table.splitlines() if line.startswith(("| ✗", "| !"))]
    assert [row.split(" | ")[0] for row in rows] == ["| ✗ fail", "| ✗ fail", "| ! warning"]
    by_status = {v.status: v for v in report.verdicts}
    assert f"- ? unknown: {by_status['unknown'].question} {by_status['unknown'].evidence}" in table
    assert "\n✓ pass: alignment on own states\n" in table
    assert by_status["pass"].evidence not in text


def test_self_tests_are_told_before_the_verdicts(report, text):
    assert "\n\n✓ All 2 self-tests pass; 1 could not be asked.\n\n| | question" in text
    failed = report_markdown(dataclasses.replace(report, selftests=[*report.selftests, FAILED_SELFTEST]))
    assert (
        "✗ 1 of 3 self-tests failed: student and teacher at the same token; 1 could not be asked.\n"
        "- Student and teacher at the same token (step 100): It fits best shifted by 1: 0.5 nats, 6.1 unshifted. "
        "Look at the template.\n"
    ) in failed


def test_what_depends_on_the_average_is_named(text):
    said = "**Conclusions that depend on the average**\n\n- Forward KL, own states: −1.00 over tokens, "
    assert f"{said}+0.40 over rollouts, +0.50 over prompts." in text


def test_numbers_are_folded_and_their_table_is_one(text):
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark").enable("table").render(text)
    folded = html[
        html.index("<details><summary>Numbers of the first and the last checkpoint") : html.index("</details>")
    ]
    assert "<td>Reverse KL (nats)</td>" in folded
    assert html.count("<table>") == 2


def test_rough_intervals_are_marked(tmp_path, text):
    rough = report_markdown(made_up_report(tmp_path, prompts=12))
    assert "| Reverse KL (nats) | own states | 2.10 ~[" in rough
    assert "~ before an interval: too few prompts" in rough
    assert "~" not in text


def test_what_tells_a_false_success_is_among_the_numbers(text):
    assert "| Forward KL (nats) | the teacher's states |" in text
    assert "| Unigram entropy (nats) | the teacher's responses |" in text


def test_evidence_is_whole_however_much_there_is_of_it(report):
    long = dataclasses.replace(report.verdicts[0], evidence="progress; " * 80 + "and the end.")
    assert "and the end." in report_markdown(dataclasses.replace(report, verdicts=[long]))


def test_values_within_twice_their_floor_are_marked_and_the_sign_is_explained(report, text):
    marked = report_markdown(with_precision_floors(report))
    assert (
        "| Reverse KL (nats) | own states | 2.10 [2.01, 2.19] | ≈0.31 [0.27, 0.35] | −1.79 [−1.82, −1.76] |" in marked
    )
    assert "clustered by prompt. ≈ within twice the precision floor: not told from rounding. Pictures" in marked
    assert "≈" not in text
    assert "clustered by prompt. Pictures" in text


def test_notes_are_told_up_to_a_number(report):
    text = report_markdown(dataclasses.replace(report, notes=["One of them."] * 500))
    assert text.count("- One of them.") == 20
    assert "and 480 more" in text
    assert "Shortened" not in text


WORST = "@a&<|*\x00\u202e" * 300
"""Every character grows where it is written."""
COMMENT, SUMMARY = 65_536, 2**20
"""What GitHub takes: characters of a comment, bytes of a job summary."""


@pytest.mark.parametrize("status", ["fail", "unknown", "pass"])
@pytest.mark.parametrize("said", [HOSTILE * 6, WORST, "x" * 5000], ids=["hostile", "worst", "long"])
def test_fits_a_comment_and_a_job_summary_whatever_is_said(report, said, status):
    """Each text is longer than any room for one, and there are more of each kind than any room has rows."""
    verdict = dataclasses.replace(report.verdicts[0], status=status, evidence=said, question=said, name="n" * 200)
    selftests = [dataclasses.replace(FAILED_SELFTEST, evidence=said, advice=said, model=said) for _ in range(70)]
    headline = dataclasses.replace(report.headline, title=said, facts=[said] * 6)
    crowded = dataclasses.replace(
        report, run=said, headline=headline, verdicts=[verdict] * 70, notes=[said] * 70, selftests=selftests
    )
    text = report_markdown(crowded)
    assert len(text) < COMMENT - 2000
    assert len(text.encode()) < SUMMARY
    assert "Shortened to fit a comment: all of it is in report.html.</sub>" in text
    assert "more, in report.html" in text


def test_forty_alarms_are_all_told_though_shorter(report):
    alarm = dataclasses.replace(report.verdicts[0], status="fail", evidence="Of the change, policy −4.07. " * 100)
    notes = [f"Note {i}: {'long ' * 80}" for i in range(200)]
    crowded = dataclasses.replace(report, verdicts=[alarm] * 40, notes=notes)
    text = report_markdown(crowded)
    assert len(text) < COMMENT - 2000
    assert text.count("| ✗ fail |") == 40
    assert "Of the change, policy −4.07. Of the change" in text
    assert "Shortened to fit a comment" in text
    assert "Notes**\n\n- Note 0: " in text


def test_what_fits_is_not_shortened(text):
    assert "Shortened" not in text
    assert len(text) < 20_000


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("a|b", r"a\|b"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[x](http://evil)", r"[x\](http://<!-- -->evil)"),
        ("https://github.com/me/x/issues/1", "https://<!-- -->github.com/me/x/issues/1"),
        ("HTTP://e.org ftp://e.org s3://b", "HTTP://<!-- -->e.org ftp://<!-- -->e.org s3://<!-- -->b"),
        ("www.e.org _WWW.e.org", r"www<!-- -->.e.org \_WWW<!-- -->.e.org"),
        ("me@e.org me@-e.org me@_e.org", r"me@<!-- -->e.org me@<!-- -->-e.org me@<!-- -->\_e.org"),
        ("GH-12 gh-1, high-12", "GH-<!-- -->12 gh-<!-- -->1, high-12"),
        ("www wwwhat @ # a://", "www wwwhat @ # a://<!-- -->"),
        ("![x](y)", r"![x\](y)"),
        ("`code`", r"\`code\`"),
        ("line\n# break", "line # break"),
        ("# title", r"\# title"),
        ("- item", r"\- item"),
        ("@me #12", "@<!-- -->me #<!-- -->12"),
        ("+0.40 [0.35, 0.45], 12 prompts", r"\+0.40 [0.35, 0.45], 12 prompts"),
        ("\x00\u202e", r"\\x00\\u202e"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_users_text_shows_as_it_is(given, written):
    assert in_markdown(given) == written


LINKED = re.compile(r"(https?|ftp)://\w|www\.\w|\w@[\w-]|(^|\W)@\w|#\d|\bgh-\d", re.IGNORECASE)
"""What GitHub makes links of without being asked: GFM's extended autolinks, mentions, issues."""


def test_no_name_becomes_a_link_wherever_it_stands(report):
    said = "https://github.com/me/x/issues/1 www.e.org me@e.org @me me/x#1 GH-1"
    assert len(LINKED.findall(said)) == 6
    texts = {"question": said, "evidence": said, "advice": said}
    shown = report_markdown(
        dataclasses.replace(
            report,
            run=said,
            headline=dataclasses.replace(report.headline, title=said, facts=[said], advice=said),
            verdicts=[dataclasses.replace(v, **texts) for v in report.verdicts],
            selftests=[dataclasses.replace(FAILED_SELFTEST, evidence=said, advice=said, model=said)],
            notes=[said],
        )
    )
    assert shown.count("https://<!-- -->github.com") >= 10
    assert not LINKED.search(shown)


def test_markdown_reader_makes_no_link_or_tag_of_it(report):
    from markdown_it import MarkdownIt

    crowded = dataclasses.replace(report, notes=[HOSTILE, "![x](http://e)", "[a]: http://e", "<b>", "[x][y]"])
    html = MarkdownIt("commonmark").enable("table").render(report_markdown(crowded))
    assert "<script" not in html
    assert "<a " not in html
    assert "<img" not in html
    assert "<b>" not in html
