"""What a page says of the self-tests, and of conclusions that hang on the average."""

from __future__ import annotations

import dataclasses

import pandas as pd

from opd_diag.report.belief import averages_that_disagree, belief, titled
from opd_diag.report.sections import sorted_verdicts
from report.made_up_report import FAILED_SELFTEST, SELFTESTS, made_up_report


def asked(report, *tests):
    return belief(dataclasses.replace(report, selftests=tests))


def test_self_tests_are_sorted_by_what_they_say(report):
    seen = belief(report)
    assert [len(tests) for tests in (seen.failed, seen.unknown, seen.passed)] == [0, 1, 2]
    assert seen.status == "pass"
    assert seen.sentence == "All 2 self-tests pass; 1 could not be asked"


def test_one_failure_outweighs_what_passed(report):
    seen = asked(report, *SELFTESTS, FAILED_SELFTEST, FAILED_SELFTEST)
    assert seen.status == "fail"
    assert seen.sentence == "2 of 4 self-tests failed: student and teacher at the same token; 1 could not be asked"


def test_nothing_asked_is_not_a_pass(report):
    assert asked(report).status == "unknown"
    assert asked(report).sentence.startswith("No self-test was made")
    assert asked(report, SELFTESTS[2]).status == "unknown"
    assert asked(report, SELFTESTS[0]).sentence == "1 self-test passes"


def test_a_self_test_without_a_title_goes_by_its_name():
    assert titled(dataclasses.replace(FAILED_SELFTEST, name="new_thing")) == "New thing"
    assert titled(FAILED_SELFTEST) == "Student and teacher at the same token"


def test_a_conclusion_that_hangs_on_the_average_says_what_each_average_says(report):
    assert averages_that_disagree(report) == [
        "Forward KL, own states: −1.00 over tokens, +0.40 over rollouts, +0.50 over prompts."
    ]


def test_other_metrics_are_counted(report):
    flagged = report.tables.differences.assign(depends_on_average=True)
    said = averages_that_disagree(
        dataclasses.replace(report, tables=dataclasses.replace(report.tables, differences=flagged))
    )
    assert len(said) == 7 * 3 + 1  # primary metrics, state sets
    assert said[-1].endswith("changes of other metrics, marked in the table of changes.")


def test_the_teacher_goes_by_its_role_whatever_it_is_called(report):
    tables = dataclasses.replace(report.tables, summary=report.tables.summary.assign(teacher="new"))
    asked = [dataclasses.replace(FAILED_SELFTEST, model=model) for model in ("new", "step 0", "new reading step 0")]
    found = belief(dataclasses.replace(report, tables=tables, selftests=asked))
    assert [test.model for test in found.failed] == ["teacher", "step 0", "new reading step 0"]


def test_averages_that_agree_or_were_not_compared_are_not_named(report):
    tables = report.tables
    bare = dataclasses.replace(tables, averages=pd.DataFrame())
    assert averages_that_disagree(dataclasses.replace(report, tables=bare)) == ["Forward KL, own states."]
    for change in ({"depends_on_average": pd.NA}, {"depends_on_average": False}):
        agreed = dataclasses.replace(tables, differences=tables.differences.assign(**change))
        assert averages_that_disagree(dataclasses.replace(report, tables=agreed)) == []
    old = dataclasses.replace(tables, differences=tables.differences.drop(columns="depends_on_average"))
    assert averages_that_disagree(dataclasses.replace(report, tables=old)) == []


def test_one_checkpoint_has_no_change_to_depend_on_anything(tmp_path):
    assert averages_that_disagree(made_up_report(tmp_path, steps=[40])) == []


def test_verdicts_are_put_apart_by_what_to_do_about_them(report):
    apart = sorted_verdicts(report.verdicts)
    assert [v.status for v in apart.alarms] == ["fail", "fail", "warn"]
    assert [v.status for v in (*apart.unknown, *apart.passed)] == ["unknown", "pass"]
    assert [v.name for v in apart.alarms][:2] == ["false_success", "alignment_at_start"]
