"""The Python door, end to end on the tiny run: what is written, what it says, and that it can be repeated."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import tiny_run as tiny
from typer.testing import CliRunner

import opd_diag
from opd_diag.cli import app
from opd_diag.diagnosis import default_out, demo_runs, plan_report
from opd_diag.errors import InputError, OpdDiagError, StoreError
from opd_diag.records.rollout import load_rollouts, save_rollouts
from opd_diag.records.settings import Settings
from opd_diag.records.verdict import Verdict
from opd_diag.report.json_file import report_schema
from opd_diag.tables import METRIC_NAMES, Tables
from opd_diag.tables.fits import FIT_METRICS
from opd_diag.tables.responses import RESPONSE_METRICS

LABELS = ["step 0", "step 10", "step 20", "step 30"]
VERDICTS = [
    "healthy", "aligned_inputs", "false_success", "degeneration", "alignment_on_policy", "alignment_at_start",
    "alignment_at_teacher", "accuracy", "patterns_compatible", "indistinguishable_teacher", "new_capability",
    "sharpness", "termination", "concentrated_signal", "depth_decay", "shared_mass", "entropy_gap",
]  # fmt: skip


def read(out):
    return json.loads((Path(out) / "report.json").read_text(encoding="utf-8"))


def numbers(out):
    """What of report.json must not change when the report is made again."""
    stored = read(out)
    return {name: stored[name] for name in ("summary", "concentration", "verdicts", "headline")}


def statuses(report):
    return {v.name: v.status for v in report.verdicts}


def value(report, metric, label, states="on-policy"):
    summary = report.tables.summary
    rows = summary[(summary["metric"] == metric) & (summary["label"] == label) & (summary["states"] == states)]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """The whole report with pages: (report, folder, listing of the run's files before and after)."""
    out = tmp_path_factory.mktemp("finished") / "out"
    before = tiny.listing(tiny_run.root)
    report = opd_diag.diagnose(tiny_run.run_dir, out=out)
    return report, out, before, tiny.listing(tiny_run.root)


def test_nothing_is_written_beside_out_dir(finished):
    _, _, before, after = finished
    assert "run/checkpoint-10/model.safetensors" in before
    assert after == before


def test_the_files_of_the_contract(finished):
    _, out, _, _ = finished
    slugs = [f"step-0000{step:02d}" for step in (0, 10, 20, 30)]
    found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    expected = {"report.html", "report.json", "report.md", "summary.csv", "summary.parquet", "selftest.json"}
    expected |= {"strata.csv", "strata.parquet", "averages.csv", "averages.parquet", "baselines.parquet"}
    expected |= {"logged.csv", "logged.parquet"}
    expected |= {f"stops/{s}.{states}.parquet" for s in slugs for states in ("on-policy", "teacher")}
    expected |= {"vocabulary.json", "rollouts/start.jsonl", *(f"rollouts/{s}.jsonl" for s in slugs)}
    expected |= {"rollouts/teacher.jsonl", *(f"coverage/{s}.parquet" for s in slugs)}
    for states in ("on-policy", "start", "teacher"):
        expected |= {f"states/{s}.{states}.parquet" for s in slugs}
        expected |= {f"{of}/{s}.{states}.safetensors" for s in slugs for of in ("scores", "fits")}
    figures = {name for name in found if name.startswith("figures/")}
    assert {name for name in found - figures if not name.startswith(".")} == expected
    assert len(figures) >= 4
    assert all(name.endswith(".svg") for name in figures)


def test_report_json_keeps_its_schema(finished):
    report, out, _, _ = finished
    stored = read(out)
    jsonschema.Draft202012Validator(report_schema()).validate(stored)
    assert stored["run"] == "run"
    assert [v["name"] for v in stored["verdicts"]] == VERDICTS
    assert {(r["label"], r["states"]) for r in stored["summary"]} == {
        (label, states) for label in LABELS for states in ("on-policy", "start", "teacher")
    }
    assert {r["metric"] for r in stored["summary"]} == {*METRIC_NAMES, *RESPONSE_METRICS, *FIT_METRICS}
    assert {(r["label"], r["part"]) for r in stored["split"]} == {
        (label, part) for label in LABELS[1:] for part in ("on_policy_change", "policy_change", "state_change")
    }
    assert [r["k"] for r in stored["concentration"][:8]] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert stored["headline"]["title"] == report.headline.title


def test_all_forms_of_the_summary_say_the_same(finished):
    report, out, _, _ = finished
    stored = read(out)["summary"]
    csv, parquet = pd.read_csv(out / "summary.csv"), pd.read_parquet(out / "summary.parquet")
    for table in (csv, parquet, report.tables.summary):
        assert list(table.columns) == list(stored[0])
        for column in ("value", "ci_low", "ci_high"):
            expected = [math.nan if row[column] is None else row[column] for row in stored]
            assert table[column].astype(float).tolist() == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert table["n_states"].tolist() == [row["n_states"] for row in stored]


def test_numbers_show_the_run_as_it_was_made(finished):
    """The checkpoints lie ever nearer to the teacher."""
    report, _, _, _ = finished
    for states in ("on-policy", "start"):
        kls = [value(report, "reverse_kl", label, states) for label in LABELS]
        assert kls == sorted(kls, reverse=True)
        assert kls[0] > 10 * kls[-1]
        overlaps = [value(report, "overlap_ratio", label, states) for label in LABELS]
        assert overlaps == sorted(overlaps)
    assert value(report, "reverse_kl", "step 0", "start") == value(report, "reverse_kl", "step 0")
    assert statuses(report)["alignment_on_policy"] == statuses(report)["alignment_at_start"] == "pass"
    assert report.headline.status != "pass", "nothing was learned"


def test_check_gives_the_reports_verdicts(finished, monkeypatch):
    """And loads no model for it."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **o: pytest.fail("weights"))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *a, **o: pytest.fail("tokenizer"))
    report, out, _, _ = finished
    for source, asked in ((out, ()), (str(out), ()), (report.tables, report.selftests)):
        found = opd_diag.check(source, selftests=asked)
        assert [v.as_record() for v in found] == [v.as_record() for v in report.verdicts]
    assert all(isinstance(v, Verdict) for v in opd_diag.check(out))
    assert [v.as_record() for v in report.verdicts] == read(out)["verdicts"]


def test_check_of_a_report_that_was_begun_again_and_killed(tiny_run, tmp_path, without_pages, monkeypatch):
    """Its states are of one report, its responses already of another."""
    out, options = tmp_path / "out", {"checkpoints": "30", "max_prompts": 3, "states": "on-policy"}
    opd_diag.diagnose(tiny_run.run_dir, out=out, **options)
    opd_diag.check(out)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("opd_diag.replay.parts.score", die)
        with pytest.raises(KeyboardInterrupt):
            opd_diag.diagnose(tiny_run.run_dir, out=out, **options, seed=1)
    with pytest.raises(StoreError, match=r"A later report in .* was begun and not finished\. Run report again\."):
        opd_diag.check(out)
    opd_diag.diagnose(tiny_run.run_dir, out=out, **options, seed=1)
    opd_diag.check(out)


def test_check_with_other_thresholds(finished):
    _, out, _, _ = finished

    def status(**options):
        return {v.name: v.status for v in opd_diag.check(out, **options)}["shared_mass"]

    assert status() == "warn"
    assert status(thresholds={"shared_mass": 0.1}) == "pass"
    assert status(thresholds={"prompts": 9}) == "unknown"
    with pytest.raises(InputError, match="no threshold 'mass'"):
        opd_diag.check(out, thresholds={"mass": 1})


def test_check_without_step_zero(finished):
    report, out, _, _ = finished
    known = {v.name: v.status for v in opd_diag.check(out, step_zero_known=False)}
    assert (known["alignment_at_start"], known["patterns_compatible"]) == ("unknown", "unknown")
    summary = report.tables.summary.assign(step=pd.array([pd.NA] * len(report.tables.summary), dtype="Int64"))
    tables = Tables(**{f.name: getattr(report.tables, f.name) for f in fields(Tables)} | {"summary": summary})
    unnamed = {v.name: v.status for v in opd_diag.check(tables)}
    assert unnamed["alignment_at_start"] == "unknown", "an unknown step is not step 0"
    assert {v.name: v.status for v in opd_diag.check(tables, step_zero_known=True)}["alignment_at_start"] == "pass"


def test_check_of_no_report(tmp_path, finished):
    with pytest.raises(StoreError, match=r"report\.json.*Run opd-diag report first"):
        opd_diag.check(tmp_path)
    shutil.copytree(finished[1], tmp_path / "out")
    (tmp_path / "out/states/step-000010.start.parquet").unlink()
    with pytest.raises(StoreError, match=r"step-000010\.start\.parquet"):
        opd_diag.check(tmp_path / "out")


def test_provenance_says_what_was_measured(finished, tiny_run):
    import hashlib

    known = read(finished[1])["provenance"]
    assert [(m["role"], m["label"], m["step"]) for m in known["models"]] == [
        *(("student", label, 10 * i) for i, label in enumerate(LABELS)),
        ("teacher", "teacher", None),
    ]
    for model in known["models"]:
        assert Path(model["path"]).is_dir()
        assert model["vocabulary"] == tiny.VOCABULARY
        assert model["parameters"] == sum(p.numel() for p in tiny.model(1).parameters())
        assert model["base_model"] is None
        assert len(model["key"]) == 64
    assert len({m["key"] for m in known["models"]}) == 5
    assert known["prompts"]["n"] == 8
    assert known["prompts"]["sha256"] == hashlib.sha256(tiny_run.prompts.read_bytes()).hexdigest()
    assert known["vocabulary"] == {
        "common": 261, "student": 261, "teacher": 261, "student_cut_mass_max": 0.0, "teacher_cut_mass_max": 0.0,
        "stop_ids": [257],
    }  # fmt: skip
    assert known["step_zero"] is True
    assert (known["device"], known["dtype"]) == ("cpu", "float32")
    assert known["threads"] >= 1
    assert set(known["settings"]) == {f.name for f in fields(Settings)}
    assert {"python", "torch", "transformers", "numpy"} <= set(known["versions"])
    assert known["opd_diag"]


def test_logprobs_as_sampled_are_held_against_the_replayed_ones(finished, tiny_run, tmp_path, without_pages):
    from opd_diag.report.measured import measured

    report, out, _, _ = finished
    known = read(out)["provenance"]["logprobs"]
    assert [check["model"] for check in known] == [*LABELS, "teacher"]
    assert all(check["mean_abs_difference"] < 1e-4 for check in known)
    assert "Sampled against replayed" in dict(measured(report))
    assert not [note for note in report.notes if "log-probabilities" in note]
    shifted = tmp_path / "rollouts.jsonl"
    save_rollouts(shifted, [
        replace(r, sampled_logprobs=(*r.sampled_logprobs[1:], r.sampled_logprobs[0]))
        for r in load_rollouts(out / "rollouts/step-000010.jsonl")
    ])  # fmt: skip
    again = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", checkpoints="10", rollouts=str(shifted))
    [note] = [note for note in again.notes if "log-probabilities" in note]
    assert note.startswith("The log-probabilities that step 10 gave its own tokens (sampled) differ from the replayed")
    assert "(step 10, the most)" in dict(measured(again))["Sampled against replayed"]


def test_the_page_is_told_how_the_tokenizers_differ(own_run, tmp_path, without_pages):
    from opd_diag.report.measured import measured

    other = tiny.byte_tokenizer(special=(*tiny.SPECIAL, "<tool>"))
    other.save_pretrained(own_run.teacher)
    report = opd_diag.diagnose(own_run.run_dir, out=tmp_path / "out", checkpoints="30")
    assert "261 entries, the teacher's 262" in dict(measured(report))["Tokenizers"]


REPEATED = [
    pytest.param({}, id="plain"),
    pytest.param({"k": 8, "max_prompts": 6, "seed": 3, "states": "start,on-policy", "checkpoints": "10,30"}, id="many"),
    pytest.param(
        {"temperature": 0.5, "top_p": 0.9, "student_temperature": 2.0, "teacher_system_prompt": 'Add \'em, "now".'},
        id="quotes",
    ),
    pytest.param({"chat_template_kwargs": {"name": "x y"}, "dtype": "bfloat16"}, id="keyword arguments"),
    pytest.param({"rollouts_per_prompt": 1, "max_new_tokens": 6}, id="over the manifest"),
]


@pytest.mark.parametrize("options", REPEATED)
def test_the_command_repeats_the_report(tiny_run, tmp_path, without_pages, options):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "first", **options)
    program, *words = shlex.split(report.provenance["command"])
    assert program == "opd-diag"
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "second"), "--quiet"])
    assert done.exit_code == 0, done.stderr
    assert numbers(tmp_path / "second") == numbers(tmp_path / "first")
    assert read(tmp_path / "second")["provenance"]["settings"] == read(tmp_path / "first")["provenance"]["settings"]


def test_the_command_keeps_a_default_that_overrides_the_manifest(tiny_run, tmp_path, without_pages):
    """The manifest asks for 2 rollouts and 10 tokens; asking for the default of a setting must not get lost."""
    own = tiny_run.copied_to(tmp_path / "own")
    manifest = own.run_dir / "opd-diag.toml"
    manifest.write_text("k = 4\nseed = 9\n" + manifest.read_text())
    report = opd_diag.diagnose(own.run_dir, out=tmp_path / "first", k=16, seed=0, checkpoints="30")
    _, *words = shlex.split(report.provenance["command"])
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "second"), "--quiet"])
    assert done.exit_code == 0, done.stderr
    assert numbers(tmp_path / "second") == numbers(tmp_path / "first")


def test_made_again_it_says_the_same(finished, tiny_run, tmp_path, without_pages):
    opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out")
    assert numbers(tmp_path / "out") == numbers(finished[1])
    opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out")
    assert numbers(tmp_path / "out") == numbers(finished[1])


def test_excerpts_are_of_the_first_and_the_last_checkpoint_and_the_teacher(finished):
    report = finished[0]
    assert list(report.excerpts) == ["step 0", "step 30", "teacher"]
    for label, rollouts in report.excerpts.items():
        assert [r.prompt_index for r in rollouts] == list(range(6))
        assert {(r.provenance.weights, r.rollout_index) for r in rollouts} == {(label, 0)}


def assert_same_values(report, whole, states):
    assert list(dict.fromkeys(report.tables.summary["states"])) == list(states)
    for label in dict.fromkeys(report.tables.summary["label"]):
        for state_set in states:
            assert value(report, "reverse_kl", label, state_set) == value(whole, "reverse_kl", label, state_set)
    for label, rollouts in report.excerpts.items():
        assert {r.provenance.weights for r in rollouts} == {label}


def test_state_sets_in_any_order(finished, tiny_run, tmp_path, without_pages):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", states="teacher,start,on-policy")
    assert_same_values(report, finished[0], ["teacher", "start", "on-policy"])
    assert [v.as_record() for v in report.verdicts] == [v.as_record() for v in finished[0].verdicts]
    assert report.excerpts == finished[0].excerpts


def test_own_states_alone(finished, tiny_run, tmp_path, without_pages):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", states=["on-policy"])
    assert_same_values(report, finished[0], ["on-policy"])
    assert statuses(report)["alignment_on_policy"] == "pass"
    assert statuses(report)["alignment_at_start"] == "unknown"
    assert report.headline.status == "unknown", "own states alone show no progress"
    assert [v.as_record() for v in opd_diag.check(tmp_path / "out")] == [v.as_record() for v in report.verdicts]


def test_the_starts_states_alone(finished, tiny_run, tmp_path):
    """With its page, which must do without accuracy and without own states."""
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", states="start")
    jsonschema.Draft202012Validator(report_schema()).validate(read(tmp_path / "out"))
    assert_same_values(report, finished[0], ["start"])
    told = {name for name, status in statuses(report).items() if status != "unknown"}
    assert told == {"aligned_inputs", "alignment_at_start"}
    assert list(report.excerpts) == ["step 0"]
    assert [v.as_record() for v in opd_diag.check(tmp_path / "out")] == [v.as_record() for v in report.verdicts]


def test_without_the_initial_student(own_run, tmp_path, without_pages):
    tiny.write_manifest(own_run, student="")
    report = opd_diag.diagnose(own_run.run_dir, out=tmp_path / "out")
    found = statuses(report)
    assert (found["alignment_at_start"], found["patterns_compatible"]) == ("unknown", "unknown")
    assert found["alignment_on_policy"] == "pass"
    assert report.headline.status == "unknown"
    assert any("Step 0 is unknown" in note and "step 10" in note and "--student" in note for note in report.notes)
    assert report.provenance["step_zero"] is False
    start = load_rollouts(tmp_path / "out/rollouts/start.jsonl")
    assert {r.provenance.weights for r in start} == {"step 10"}
    assert [v.as_record() for v in opd_diag.check(tmp_path / "out")] == [v.as_record() for v in report.verdicts]


def test_the_note_names_the_start_that_was_used(own_run, tmp_path, without_pages):
    tiny.write_manifest(own_run, student="")
    tiny.fill_with_nan(own_run.checkpoint(10))
    report = opd_diag.diagnose(own_run.run_dir, out=tmp_path / "out")
    [note] = [note for note in report.notes if "Step 0 is unknown" in note]
    assert "'start' is step 20" in note


def test_a_teacher_that_never_ends_is_noted(tiny_run, tmp_path, without_pages):
    short = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "short", max_new_tokens=1, checkpoints="30")
    ends = {r.stop_reason for r in load_rollouts(tmp_path / "short/rollouts/teacher.jsonl")}
    assert ends == {"length"}
    [note] = [note for note in short.notes if "responses of the teacher were cut" in note]
    assert "All 16" in note
    assert "at the limit of 1," in note
    assert "--max-new-tokens" in note
    own = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "own", max_new_tokens=1, states="on-policy,start")
    assert not [note for note in own.notes if "of the teacher" in note]


def test_one_checkpoint_and_one_prompt(own_run, tmp_path):
    """The least there can be, with its page: no step, nothing to compare, and no interval."""
    model = own_run.checkpoint(20)
    (model / "trainer_state.json").unlink()
    model = model.rename(own_run.root / "<b>last<|b>&")
    options = {"teacher": str(own_run.teacher), "prompts": str(own_run.prompts), "max_new_tokens": 10}
    report = opd_diag.diagnose(model, out=tmp_path / "out", max_prompts=1, **options)
    label = "<b>last<|b>&"
    assert report.tables.differences.empty
    assert report.tables.summary["step"].isna().all()
    assert list(report.excerpts) == [label, "teacher"]
    assert statuses(report)["alignment_on_policy"] == "unknown"
    assert report.headline.title == "Nothing to compare yet"
    stored = read(tmp_path / "out")
    jsonschema.Draft202012Validator(report_schema()).validate(stored)
    assert {row["ci_low"] for row in stored["summary"]} == {None}
    assert {row["overlap_ratio_ci_high"] for row in stored["concentration"]} == {None}
    assert value(report, "reverse_kl", label) > 0.05
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert label not in page
    assert "&lt;b&gt;last&lt;|b&gt;&amp;" in page
    assert [v.as_record() for v in opd_diag.check(tmp_path / "out")] == [v.as_record() for v in report.verdicts]


def test_a_single_model_without_a_step(tiny_run, finished, tmp_path, without_pages):
    model = tmp_path / "[red]last:warning:"
    shutil.copytree(tiny_run.checkpoint(30), model)
    (model / "trainer_state.json").unlink()
    options = {"teacher": str(tiny_run.teacher), "prompts": str(tiny_run.prompts), "student": str(tiny_run.student)}
    report = opd_diag.diagnose(
        model, out=tmp_path / "out", rollouts_per_prompt=2, max_new_tokens=tiny.MAX_NEW_TOKENS, **options
    )
    assert [c.label for c in report.checkpoints] == ["step 0", "[red]last:warning:"]
    assert report.tables.summary["step"].dropna().unique().tolist() == [0]
    jsonschema.Draft202012Validator(report_schema()).validate(read(tmp_path / "out"))
    assert value(report, "reverse_kl", "[red]last:warning:", "start") == pytest.approx(
        value(finished[0], "reverse_kl", "step 30", "start"), rel=1e-6
    )
    assert [v.as_record() for v in opd_diag.check(tmp_path / "out")] == [v.as_record() for v in report.verdicts]


def test_two_prompts_are_too_few_for_verdicts(tiny_run, tmp_path, without_pages):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", max_prompts=2)
    assert {s for name, s in statuses(report).items() if name != "aligned_inputs"} == {"unknown"}
    row = next(r for r in read(tmp_path / "out")["summary"] if r["metric"] == "reverse_kl")
    assert row["n_prompts"] == 2
    assert row["value"] > 0
    assert row["ci_low"] is row["ci_high"] is None


def test_prompts_left_out_are_noted(tiny_run, tmp_path, without_pages):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", max_prompts=7, checkpoints="30")
    assert "The first 7 of 8 prompts were used (--max-prompts)." in report.notes
    assert report.provenance["prompts"]["n"] == 7


def test_plain_text_prompts(tiny_run, tmp_path, without_pages):
    (tmp_path / "prompts.txt").write_text("".join(f"{i} and {i} make\n" for i in range(6)))
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", prompts=str(tmp_path / "prompts.txt"))
    assert statuses(report)["accuracy"] == "unknown"
    rollouts = load_rollouts(tmp_path / "out/rollouts/start.jsonl")
    assert rollouts[0].prompt_text == "0 and 0 make"
    assert rollouts[0].answer is None
    accuracy = [r for r in read(tmp_path / "out")["summary"] if r["metric"] == "accuracy"]
    assert all(r["value"] is None and r["n_undefined"] == 12 for r in accuracy)


def test_the_teachers_system_prompt_changes_what_it_sees_and_says(finished, tiny_run, tmp_path, without_pages):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", teacher_system_prompt="Add.")
    for mine, plain in zip(
        load_rollouts(tmp_path / "out/rollouts/start.jsonl"),
        load_rollouts(finished[1] / "rollouts/start.jsonl"),
        strict=True,
    ):
        assert plain.teacher_prompt_ids == plain.prompt_ids == mine.prompt_ids
        assert mine.teacher_prompt_ids != mine.prompt_ids
        assert mine.teacher_prompt_ids[0] == 258
        assert mine.response_ids == plain.response_ids
    assert value(report, "student_entropy", "step 0") == value(finished[0], "student_entropy", "step 0")
    assert abs(value(report, "teacher_entropy", "step 0") - value(finished[0], "teacher_entropy", "step 0")) > 1e-3
    assert abs(value(report, "reverse_kl", "step 30") - value(finished[0], "reverse_kl", "step 30")) > 1e-3


def test_temperature_leaves_sampled_quantities_undefined(tiny_run, tmp_path, without_pages):
    report = opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", temperature=0.7, checkpoints="30")
    rows = [r for r in read(tmp_path / "out")["summary"] if r["metric"] == "sampled_reverse_kl"]
    assert {r["value"] for r in rows} == {None}
    assert all(r["n_undefined"] > 0 and r["n_states"] == 0 for r in rows)
    assert any("Sampled reverse KL is undefined" in note for note in report.notes)


def test_a_broken_checkpoint_is_named_and_left_out(own_run, tmp_path):
    tiny.truncate(own_run.checkpoint(10))
    tiny.fill_with_nan(own_run.checkpoint(20))
    report = opd_diag.diagnose(own_run.run_dir, out=tmp_path / "out", states="on-policy")
    assert {c.label: c.loadable for c in report.checkpoints} == {
        "step 0": True, "step 30": True, "step 20": False, "step 10": False,
    }  # fmt: skip
    assert [m["label"] for m in report.provenance["models"]] == ["step 0", "step 30", "teacher"]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "model.safetensors is truncated" in page
    assert "step 20 gives NaN" in page


def test_progress_is_told(tiny_run, tmp_path, without_pages):
    told = []
    opd_diag.diagnose(
        tiny_run.run_dir, out=tmp_path / "out", checkpoints="30", progress=lambda *what: told.append(what)
    )
    assert told[-1][0] == "step 30: fits on teacher states"
    assert told[-1][1] == told[-1][2] > 0


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """Of ``--out=~/x`` no shell expands it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_out("run", "~/x") == tmp_path / "x"


def test_the_default_folder(tiny_run, tmp_path, monkeypatch, without_pages):
    monkeypatch.chdir(tmp_path)
    report = opd_diag.diagnose(tiny_run.run_dir, checkpoints="30")
    assert report.out_dir == Path("opd-diag/run")
    assert (tmp_path / "opd-diag/run/report.json").is_file()
    assert default_out("some/where/", None) == Path("opd-diag/where")
    monkeypatch.chdir(tiny_run.run_dir)
    assert default_out(".", None) == Path("opd-diag/run")
    with pytest.raises(StoreError, match="inside the run folder"):
        opd_diag.diagnose(".")
    assert not (tiny_run.run_dir / "opd-diag").exists()


def test_planning_writes_nothing(tiny_run, tmp_path):
    plan = plan_report(tiny_run.run_dir, out=tmp_path / "out")
    assert [c.label for c in plan.checkpoints] == LABELS
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k must be 1 to 32"),
        ({"k": "16"}, "k must be a whole number"),
        ({"teachers": "x"}, "unknown setting teachers"),
        ({"states": "mine"}, "states must be of on-policy, start, teacher, back"),
        ({"device": "abacus"}, "--device"),
    ],
)
def test_wrong_options_are_one_sentence(tiny_run, tmp_path, options, said):
    with pytest.raises(OpdDiagError, match=said):
        opd_diag.diagnose(tiny_run.run_dir, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_bundled_runs_are_found():
    runs = demo_runs()
    assert all((run / "opd-diag.toml").is_file() for run in runs)
    assert len(runs) == 3
