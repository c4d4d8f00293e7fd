from __future__ import annotations

import copy
import dataclasses
import json

import jsonschema
import numpy as np
import pandas as pd
import pytest

from opd_diag.errors import StoreError
from opd_diag.report import load_report_json
from opd_diag.report.json_file import records, report_record, report_schema
from opd_diag.tables.concentration import CONCENTRATION_COLUMNS as TABLE_CONCENTRATION_COLUMNS
from opd_diag.tables.summary import SUMMARY_COLUMNS as TABLE_SUMMARY_COLUMNS
from opd_diag.tables.tails import tail_table
from report.made_up_report import with_precision_floors


@pytest.fixture(scope="module")
def record(report) -> dict:
    return load_report_json(report.out_dir / "report.json")


@pytest.fixture(scope="module")
def validator():
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_is_valid(record, validator):
    assert list(validator.iter_errors(record)) == []


def test_rows_have_the_columns_of_the_tables(record):
    assert {tuple(row) for row in record["summary"]} == {tuple(TABLE_SUMMARY_COLUMNS)}
    assert {tuple(row) for row in record["concentration"]} == {tuple(TABLE_CONCENTRATION_COLUMNS)}


def test_numbers_are_those_of_the_tables(record, report):
    assert len(record["summary"]) == len(report.tables.summary)
    assert [r["step"] for r in record["summary"]] == list(report.tables.summary.step)
    for row, value in zip(record["summary"], report.tables.summary.value, strict=True):
        assert row["value"] == (None if value != value else value)


def test_floors_and_marks_are_valid_and_stand_beside_the_values(report, validator):
    found = json.loads(json.dumps(report_record(with_precision_floors(report))))
    assert list(validator.iter_errors(found)) == []
    rows = [r for r in found["summary"] if r["metric"] == "reverse_kl" and r["states"] == "on-policy"]
    assert {r["floor"] for r in rows} == {0.2}
    assert [r["within_floor"] for r in rows] == [False] * 4 + [True]
    assert {r["within_floor"] for r in found["summary"] if r["metric"] == "student_entropy"} == {None}
    assert {r["floor"] for r in found["summary"] if r["metric"] == "accuracy"} == {None}
    assert [v["within_floor"] for v in found["verdicts"]][:2] == [True, False]


def test_a_report_without_floors_is_valid_too(record, validator):
    """As versions before floors wrote it."""
    old = copy.deepcopy(record)
    for row in (*old["summary"], *old["verdicts"]):
        row.pop("floor", None)
        row.pop("within_floor")
    assert list(validator.iter_errors(old)) == []


def test_what_came_later_is_there_and_may_be_missing(record, report, validator):
    """The first version of the format had none of it; reports that were written then are valid and load."""
    assert [t["status"] for t in record["selftests"]] == ["pass", "pass", "unknown"]
    assert record["selftests"][2]["value"] is None
    assert {row["baseline"] for row in record["baselines"]} == {"chance", "shuffled teacher", "other precision"}
    assert len(record["differences"]) == len(report.tables.differences)
    assert {row["p_adjusted"] for row in record["differences"]} == {0.0123, None}
    assert [row["average"] for row in record["averages"]][:3] == ["token", "rollout", "prompt"]
    assert {row["by"] for row in record["strata"]} == {"is_correct", "group"}
    assert {v["caution"] for v in record["verdicts"]} == {""}
    old = copy.deepcopy(record)
    for name in ("selftests", "differences", "averages", "baselines", "strata", "logged", "tails"):
        del old[name]
    for row in old["summary"]:
        for name in ("n_effective", "approximate", "band_low", "band_high"):
            row.pop(name, None)
    for verdict in old["verdicts"]:
        del verdict["caution"]
    assert list(validator.iter_errors(old)) == []


def test_averages_and_strata_are_short_and_their_files_whole(report, validator):
    """Of the catalogue only primary metrics; what is known of responses stays."""
    averages, strata = report.tables.averages, report.tables.strata
    names = ["overlap_ratio", "student_entropy", "truncation_rate", "top1_agreement"]
    many = strata[strata["metric"] == "reverse_kl"]
    many = pd.concat([many.assign(metric=name) for name in names], ignore_index=True)
    both = pd.concat([averages, averages.assign(metric="jensen_shannon")], ignore_index=True)
    made = dataclasses.replace(report, tables=dataclasses.replace(report.tables, averages=both, strata=many))
    found = json.loads(json.dumps(report_record(made)))
    assert list(validator.iter_errors(found)) == []
    assert {row["metric"] for row in found["strata"]} == {"overlap_ratio", "truncation_rate"}
    assert len(found["strata"]) == len(many) / 2
    assert {row["metric"] for row in found["averages"]} == {"forward_kl"}
    assert len(found["averages"]) == len(averages)


def test_of_the_trainers_log_what_has_a_name_of_ours_and_not_too_much_of_it(report, validator):
    assert {row["metric"] for row in report_record(report)["logged"]} == {"reverse_kl", "response_length"}
    long = pd.DataFrame({"step": range(5000), "value": [0.5] * 4999 + [float("nan")]})
    long = long.assign(metric="reverse_kl", trainer_key="loss", source="s", note="")
    many = pd.concat([long, long.assign(metric="loss")])
    made = dataclasses.replace(report, tables=dataclasses.replace(report.tables, logged=many))
    found = json.loads(json.dumps(report_record(made)))
    assert list(validator.iter_errors(found)) == []
    assert len(found["logged"]) == 400
    assert (found["logged"][0]["step"], found["logged"][-1]["step"]) == (0, 4999)
    assert found["logged"][-1]["value"] is None


def test_tails_are_those_of_every_checkpoint_on_every_state_set(record, report):
    states = report.tables.states
    assert len(record["tails"]) == len(states[["label", "states"]].drop_duplicates())
    for row in record["tails"]:
        values = states.loc[(states["label"] == row["label"]) & (states["states"] == row["states"]), "reverse_kl"]
        assert row["n_states"] == len(values)
        assert row["p90"] == np.quantile(values, 0.9, method="inverted_cdf")
        assert 0.1 <= row["held_by_10_ci_low"] <= row["held_by_10"] <= row["held_by_10_ci_high"] <= 1


def test_tails_that_are_infinite_or_undefined_are_null_and_valid(report, validator):
    made = report.tables.states.copy()
    made.loc[made["label"] == made["label"].iloc[0], "reverse_kl"] = float("inf")
    made.loc[made["label"] == made["label"].iloc[-1], "reverse_kl"] = float("nan")
    found = json.loads(json.dumps(report_record(replaced(report, tails=tail_table(made)))))
    assert list(validator.iter_errors(found)) == []
    first, last = found["tails"][0], found["tails"][-1]
    assert [first[name] for name in ("p50", "p99", "held_by_1", "held_by_1_ci_low")] == [None] * 4
    assert first["n_infinite"] == first["n_states"] > 0
    assert last["p99"] is None
    assert last["n_undefined"] > last["n_states"] == 0


def test_without_states_there_are_no_tails(report):
    assert report_record(replaced(report, tails=tail_table(report.tables.states.iloc[:0])))["tails"] == []


def replaced(report, **tables):
    return dataclasses.replace(report, tables=dataclasses.replace(report.tables, **tables))


def test_older_rows_without_bands_and_marks_are_valid(record, validator):
    assert {name.rsplit("_band_")[0] for name in record["concentration"][0] if "_band_" in name} == {
        "overlap_ratio", "student_overlap_mass", "teacher_overlap_mass",
    }  # fmt: skip
    old = copy.deepcopy(record)
    for row in old["concentration"]:
        for name in [name for name in row if "_band_" in name]:
            del row[name]
    for row in old["split"]:
        del row["approximate"]
    assert list(validator.iter_errors(old)) == []


def test_empty_tables_are_empty_lists(report, validator):
    bare = {name: pd.DataFrame() for name in ("averages", "baselines", "strata", "differences")}
    bare["logged"] = report.tables.logged.iloc[:0]
    tables = dataclasses.replace(report.tables, **bare)
    found = json.loads(json.dumps(report_record(dataclasses.replace(report, tables=tables, selftests=()))))
    assert all(found[name] == [] for name in (*bare, "selftests"))
    assert list(validator.iter_errors(found)) == []


@pytest.mark.parametrize("columns", [["band_low"], ["floor", "within_floor"]])
def test_columns_that_a_table_made_by_hand_lacks_are_null(report, columns):
    wanted = list(report.tables.summary.columns)
    found = records(report.tables.summary.drop(columns=columns), wanted)
    assert {row[name] for row in found for name in columns} == {None}
    assert list(found[0]) == wanted


def test_undefined_is_null(record, report):
    rows = [r for r in record["summary"] if r["metric"] == "sampled_reverse_kl" and r["states"] == "start"]
    assert [r["value"] for r in rows] == [None] * 5
    assert all(r["k"] is None for r in rows)
    assert "NaN" not in (report.out_dir / "report.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("summary", 0, "extra"), 1),
        (("summary", 0, "states"), "elsewhere"),
        (("summary", 0, "value"), 1.5),
        (("summary", 0, "n_states"), -1),
        (("summary", 0, "step"), 0.5),
        (("concentration", 0, "overlap_ratio"), -0.2),
        (("concentration", 0, "k"), 0),
        (("verdicts", 0, "status"), "good"),
        (("selftests", 0, "status"), "good"),
        (("baselines", 0, "baseline"), "random"),
        (("averages", 0, "average"), "word"),
        (("strata", 0, "by"), "length"),
        (("differences", 0, "p_value"), 1.5),
        (("tails", 0, "held_by_10"), 0.05),
        (("tails", 0, "p99"), -1.0),
        (("tails", 0, "held_by_1_approximate"), None),
        (("headline", "title"), None),
        (("created",), "yesterday"),
        (("schema_version",), 2),
        (("surprise",), 1),
    ],
)
def test_schema_refuses(record, validator, where, value):
    broken = copy.deepcopy(record)
    place = broken
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    assert list(validator.iter_errors(broken))


@pytest.mark.parametrize("missing", ["summary", "headline", "provenance"])
def test_schema_refuses_what_lacks_a_field(record, validator, missing):
    assert list(validator.iter_errors({k: v for k, v in record.items() if k != missing}))


def test_schema_knows_the_bounds_of_metrics(record, validator):
    broken = copy.deepcopy(record)
    row = next(r for r in broken["summary"] if r["metric"] == "reverse_kl")
    row["value"] = -1.0
    assert list(validator.iter_errors(broken))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable JSON"),
        ("[]", "no report of opd-diag"),
        ('{"schema_version": 99}', "has schema_version 99, this opd-diag reads 1"),
        ('{"schema_version": 1}', "lacks run, created"),
    ],
)
def test_reading_refuses(tmp_path, text, message):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=message):
        load_report_json(path)


def test_reading_a_missing_file(tmp_path):
    with pytest.raises(StoreError, match="cannot be read"):
        load_report_json(tmp_path / "report.json")


def test_surrogates_survive_writing(report):
    json.loads((report.out_dir / "report.json").read_text(encoding="utf-8"))
