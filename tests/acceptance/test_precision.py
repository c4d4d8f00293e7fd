"""Precision from end to end: a pair that differs by rounding is marked wherever it stands, a trained one is not."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import tiny_run as tiny
import torch

import opd_diag
from opd_diag.diagnosis import check

DIVERGENCES = ("reverse_kl", "forward_kl", "entropy_gap", "entropy_difference")
"""Not the overlap-token advantage: it goes with the square of what differs, and tells even this noise from rounding."""

NOISE = 1e-7
"""Relative; about the last digit of float32."""


def noisy(weights):
    generator = torch.Generator().manual_seed(0)
    return weights * (1 + NOISE * torch.randn(weights.shape, generator=generator))


@pytest.fixture(scope="module")
def rounded(tiny_run, tmp_path_factory, module_without_pictures):
    """Report of a run whose student and checkpoints are the teacher but for noise of the size of rounding."""
    run = tiny_run.copied_to(tmp_path_factory.mktemp("rounded") / "run")
    for folder in (run.student, run.checkpoint(20)):
        for name in ("model.safetensors", "config.json"):
            shutil.copy(run.teacher / name, folder / name)
        tiny.change_weights(folder, lambda name, weights: noisy(weights))
    out = run.root / "out"
    return opd_diag.diagnose(run.run_dir, out=out, checkpoints="20", max_prompts=6), out


def rows_of(table, metric, label, states="on-policy"):
    return table[(table["metric"] == metric) & (table["label"] == label) & (table["states"] == states)].iloc[0]


def test_a_pair_that_differs_by_rounding_is_marked_in_every_file(rounded):
    _, out = rounded
    csv, parquet = pd.read_csv(out / "summary.csv"), pd.read_parquet(out / "summary.parquet")
    stored = pd.DataFrame(json.loads((out / "report.json").read_text(encoding="utf-8"))["summary"])
    for table in (csv, parquet, stored):
        for metric in DIVERGENCES:
            row = rows_of(table, metric, "step 20", "start")
            assert 0 <= row["floor"] < 1e-4
            assert row["within_floor"] in (True, "True"), metric
            assert abs(row["value"]) < 1e-4
        assert rows_of(table, "overlap_ratio", "step 20")["within_floor"] in (True, "True")
        assert pd.isna(rows_of(table, "student_entropy", "step 20")["within_floor"])
        assert pd.isna(rows_of(table, "accuracy", "step 20")["floor"])


def test_the_page_marks_it_and_says_why(rounded):
    _, out = rounded
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "≈0.0000" in page
    assert "not told from rounding" in page
    assert "Precision floor: float32 against float64" in page
    assert "Precision floor: together against alone" in page
    assert "≈" in (out / "report.md").read_text(encoding="utf-8")


def test_no_verdict_passes_or_fails_on_it(rounded):
    report, out = rounded
    moved = {"alignment_on_policy", "alignment_at_start", "alignment_at_teacher"}
    for verdicts in (report.verdicts, check(out)):
        assert {v.status for v in verdicts if v.name in moved} == {"warn"}


def test_check_without_a_model_knows_the_floors(rounded):
    report, out = rounded
    assert [v.within_floor for v in check(out)] == [v.within_floor for v in report.verdicts]
    assert {v.name: v.evidence for v in check(out)} == {v.name: v.evidence for v in report.verdicts}


def test_a_student_that_differs_is_not_marked(tiny_run, tmp_path, without_pages):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", checkpoints="10", max_prompts=6)
    summary = report.tables.summary
    for metric in (*DIVERGENCES, "overlap_ratio", "top1_agreement", "student_overlap_mass"):
        assert not summary.loc[summary["metric"] == metric, "within_floor"].fillna(True).any(), metric
    assert not any(v.within_floor for v in report.verdicts)


def test_sixteen_bits_end_to_end(tiny_run, tmp_path, monkeypatch, without_pages):
    monkeypatch.setattr("opd_diag.inference.precision.cpu_computes", lambda dtype: True)
    options = {"checkpoints": "30", "max_prompts": 6, "device": "cpu"}
    full = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "full", **options)
    half = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "half", dtype="bfloat16", **options)
    assert half.provenance["dtype"] == "bfloat16"
    assert [m["other_dtype"] for m in half.provenance["precision"]] == ["float32", "float32"]
    floors = [rows_of(r.tables.summary, "reverse_kl", "step 30")["floor"] for r in (full, half)]
    assert floors[1] > 100 * floors[0] > 0


def test_a_cpu_without_sixteen_bits_says_so_on_the_page(tiny_run, tmp_path, monkeypatch, without_pages):
    monkeypatch.setattr("opd_diag.inference.precision.cpu_computes", lambda dtype: False)
    options = {"checkpoints": "30", "max_prompts": 6, "device": "cpu", "dtype": "float16"}
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", **options)
    assert report.provenance["dtype"] == report.provenance["settings"]["dtype"] == "float32"
    assert any("no instructions for float16" in note for note in report.notes)
