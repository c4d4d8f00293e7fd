"""Teachers side by side, of tiny models whose distances are known: a copy, a mixture, a stranger, the student."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import tiny_run as tiny

from opd_diag.errors import InputError, ModelError, StoreError
from opd_diag.inference.model import Model
from opd_diag.replay import between, parts
from opd_diag.studies import teachers
from opd_diag.studies.teachers_planned import names_of

OPTIONS = {"max_new_tokens": 8, "rollouts_per_prompt": 2}


@pytest.fixture(scope="module")
def models(tiny_run, tmp_path_factory):
    """Teachers: the run's own, a copy of it under another name, a stranger."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_run.teacher, folder / "copy")
    tiny.save(tiny.model(seed=9), folder / "stranger", tiny.byte_tokenizer())
    return {"teacher": tiny_run.teacher, "copy": folder / "copy", "stranger": folder / "stranger"}


def asked(tiny_run, chosen, out, **options):
    return teachers(tiny_run.student, chosen, out=out, prompts=str(tiny_run.prompts), **OPTIONS | options)


@pytest.fixture
def bodies(monkeypatch):
    """(name of a model, tokens) of each pass through a body while states are scored, measuring of packs apart."""
    passes, inside = [], []
    forward = Model.hidden

    def spy(self, tokens, **inputs):
        if inside:
            passes.append((self.key, tokens.numel()))
        return forward(self, tokens, **inputs)

    def spied(score):
        def scored(student, teacher, rollouts, **options):
            _ = student.takes_packs, teacher.takes_packs
            inside.append(options["states"])
            try:
                return score(student, teacher, rollouts, **options)
            finally:
                inside.pop()

        return scored

    monkeypatch.setattr(Model, "hidden", spy)
    for module in (parts, between):
        monkeypatch.setattr(module, "score", spied(module.score))
    return passes


@pytest.fixture(scope="module")
def study(tiny_run, models, tmp_path_factory):
    return asked(tiny_run, list(models.values()), tmp_path_factory.mktemp("teachers") / "out")


def verdict(study, name):
    return next(v for v in study.verdicts if v.name == name)


def test_a_copy_is_equivalent_and_a_stranger_different(study):
    assert verdict(study, "teachers_alike[teacher, copy]").status == "warn"
    assert verdict(study, "teachers_alike[teacher, copy]").value == pytest.approx(0, abs=1e-9)
    for pair in ("teacher, stranger", "copy, stranger"):
        assert verdict(study, f"teachers_alike[{pair}]").status == "pass"
        assert verdict(study, f"teachers_alike[{pair}]").value > 0.5
    rows = study.tables["distances"]
    alike = rows[(rows["first"] == "teacher") & (rows["second"] == "copy")].iloc[0]
    assert alike["symmetric_kl"] == pytest.approx(0, abs=1e-9)
    assert alike["advantage_correlation"] == pytest.approx(1)
    assert any("teacher and copy" in fact for fact in study.facts)


def test_distances_from_the_student_are_those_of_its_report(study):
    summary, rows = study.tables["summary"], study.tables["distances"]
    for name in ("teacher", "copy", "stranger"):
        of = summary[(summary["teacher"] == name) & (summary["states"] == "on-policy")].set_index("metric")["value"]
        row = rows[(rows["first"] == "the student") & (rows["second"] == name)].iloc[0]
        assert row["symmetric_kl"] == pytest.approx((of["reverse_kl"] + of["forward_kl"]) / 2, rel=1e-5)


def test_every_teacher_has_its_answers_and_the_pictures_are_drawn(study):
    rules = ("patterns_compatible", "new_capability", "indistinguishable_teacher", "sharpness", "concentrated_signal")
    for name in ("teacher", "copy", "stranger"):
        assert {f"{rule}[{name}]" for rule in rules} <= {v.name for v in study.verdicts}
    assert [p.name for p in study.pictures] == ["conditions", "distances", "pass_at_k"]
    for picture in study.pictures:
        assert picture.draw().get_title(loc="left")
    shown = study.shown[0]
    assert list(shown.columns) == ["", "teacher", "copy", "stranger", "by chance", "shuffled"]
    assert all(len(row) == len(shown.columns) for row in shown.rows)
    assert [row[1] for row in shown.rows] == [row[2] for row in shown.rows], "a copy has the teacher's numbers"
    assert [row[1] for row in shown.rows] != [row[3] for row in shown.rows]


def test_the_students_rollouts_go_through_every_body_once(tiny_run, models, tmp_path, bodies):
    study = asked(tiny_run, list(models.values())[::2], tmp_path / "out")
    by_model: dict[str, int] = {}
    for key, tokens in bodies:
        by_model[key] = by_model.get(key, 0) + tokens
    folders = sorted((tmp_path / "out" / "replay" / "teachers").iterdir())
    assert [f.name for f in folders] == ["stranger", "teacher"]

    def tokens_of(name, file):
        rows = [json.loads(line) for line in (folders[0].parent / name / "rollouts" / file).read_text().splitlines()]
        return sum(map(len, {tuple(r["prompt_ids"]) for r in rows})) + sum(len(r["response_ids"]) for r in rows)

    own = tokens_of("teacher", "start.jsonl")
    theirs = {name: tokens_of(name, "teacher.jsonl") for name in ("stranger", "teacher")}
    # once over the student's own; and over each teacher's responses student and that teacher
    assert sorted(by_model.values()) == sorted(
        [own + sum(theirs.values()), own + theirs["teacher"], own + theirs["stranger"]]
    )
    assert len(study.tables["distances"]) == 3
    assert not (tmp_path / "out" / "replay" / "hidden" / ".shards").exists(), "hidden states are gone"


def test_asked_again_it_reads_what_stands(tiny_run, models, tmp_path, bodies):
    first = asked(tiny_run, list(models.values())[:2], tmp_path / "out")
    bodies.clear()
    again = asked(tiny_run, list(models.values())[:2], tmp_path / "out")
    assert not bodies
    assert again.tables["distances"].equals(first.tables["distances"])
    assert [v.evidence for v in again.verdicts] == [v.evidence for v in first.verdicts]


def test_three_prompts_are_inconclusive(tiny_run, models, tmp_path):
    study = asked(tiny_run, [models["teacher"], models["copy"]], tmp_path / "out", max_prompts=3)
    found = verdict(study, "teachers_alike[teacher, copy]")
    assert found.status == "unknown"
    assert "3 prompts are too few, at least 5 are needed" in found.evidence
    assert study.status == "unknown"


def test_the_student_itself_brings_nothing(tiny_run, tmp_path):
    study = asked(tiny_run, [tiny_run.student], tmp_path / "out")
    assert verdict(study, "indistinguishable_teacher[student]").status == "warn"
    assert "cannot be told from the student" in study.facts[0]


def test_reverse_distillation(tiny_run, models, tmp_path):
    """The student after its run; what it was, a copy of what it was, and the teacher that it came nearer to."""
    copy = tmp_path / "old"
    shutil.copytree(tiny_run.student, copy)
    study = teachers(
        tiny_run.checkpoint(30),
        [copy, models["stranger"]],
        before=tiny_run.student,
        out=tmp_path / "out",
        prompts=str(tiny_run.prompts),
        **OPTIONS,
    )
    assert verdict(study, "pulled_back[before]").status == "fail"
    assert verdict(study, "pulled_back[old]").status == "fail"
    assert "old cannot be told from before here" in verdict(study, "pulled_back[old]").evidence
    assert verdict(study, "pulled_back[stranger]").status == "unknown"
    assert study.headline == "Would pull the student back: old"
    assert study.status == "fail"


class TestRefusals:
    def test_none(self, tiny_run, tmp_path):
        with pytest.raises(InputError) as error:
            asked(tiny_run, [], tmp_path / "out")
        assert str(error.value) == "No teacher. Name one or more with --teacher, folders or hub ids."

    def test_twice(self, tiny_run, tmp_path):
        with pytest.raises(InputError) as error:
            asked(tiny_run, [tiny_run.teacher, tiny_run.teacher], tmp_path / "out")
        assert str(error.value) == f"Teacher {tiny_run.teacher} is named twice. Name each model once."

    def test_one_that_cannot_be_used_is_left_out_and_named(self, tiny_run, tmp_path):
        study = asked(tiny_run, [tmp_path / "nowhere", tiny_run.teacher], tmp_path / "out")
        out = verdict(study, "usable_teacher[nowhere]")
        assert out.status == "unknown"
        assert "expected a model folder or hub id" in out.evidence
        assert not math.isnan(verdict(study, "patterns_compatible[teacher]").value)

    def test_none_that_can_be_used(self, tiny_run, tmp_path):
        with pytest.raises(InputError, match="expected a model folder or hub id"):
            asked(tiny_run, [tmp_path / "nowhere"], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("which", ["student", "teacher", "before"])
    def test_an_output_folder_inside_a_model(self, own_run, which):
        models = {"student": own_run.student, "teacher": own_run.teacher, "before": own_run.checkpoint(10)}
        out = models[which] / "out"
        with pytest.raises(StoreError) as error:
            asked(own_run, [own_run.teacher], out, before=models["before"])
        assert str(error.value) == (
            f"The output folder {out} lies inside the model folder {models[which]}, which opd-diag "
            "never writes to. Choose another with --out."
        )
        assert not out.exists()

    def test_no_prompts(self, tiny_run, tmp_path):
        with pytest.raises(InputError, match="No prompts"):
            teachers(tiny_run.student, [tiny_run.teacher], out=tmp_path / "out")


def test_reserved_names_get_the_folder_above(tmp_path):
    models = [str(tmp_path / "x" / "before"), str(tmp_path / "past"), str(tmp_path / "y" / "the student")]
    for model in models:
        Path(model).mkdir(parents=True)
    assert list(names_of(models, models[1]).values()) == ["x/before", "before", "y/the student"]


def test_names_are_told_apart_by_the_folder_above(tiny_run, tmp_path):
    other = tmp_path / "other" / "teacher"
    shutil.copytree(tiny_run.teacher, other)
    study = asked(tiny_run, [tiny_run.teacher, other], tmp_path / "out", max_prompts=6)
    names = list(study.tables["distances"]["second"])[:2]
    assert names == [f"{tiny_run.teacher.parent.name}/teacher", "other/teacher"]


def test_without_answers(tiny_run, models, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    lines = [json.loads(line) for line in tiny_run.prompts.read_text().splitlines()]
    prompts.write_text("".join(json.dumps({k: v for k, v in p.items() if k != "answer"}) + "\n" for p in lines))
    study = teachers(tiny_run.student, [models["teacher"]], out=tmp_path / "out", prompts=str(prompts), **OPTIONS)
    found = verdict(study, "new_capability[teacher]")
    assert found.status == "unknown"
    assert "lies outside the student's top 16" in found.evidence
    assert "pass_at_k" not in study.tables
    assert [p.name for p in study.pictures] == ["conditions", "distances"]
    assert "its lead is not known without answers" in study.facts[0]


def test_a_teacher_that_fails_on_the_way_is_left_out(tiny_run, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_run.teacher, broken)
    tiny.fill_with_nan(broken)
    study = asked(tiny_run, [broken, tiny_run.teacher], tmp_path / "out", max_prompts=6)
    assert "NaN or infinite logits" in verdict(study, "usable_teacher[broken]").evidence
    assert verdict(study, "patterns_compatible[teacher]").status != "unknown"
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        asked(tiny_run, [broken], tmp_path / "alone", max_prompts=6)


def test_responses_that_are_all_cut_tell_nothing_of_a_capability(tiny_run, tmp_path):
    study = asked(tiny_run, [tiny_run.teacher], tmp_path / "out", max_new_tokens=1)
    found = verdict(study, "new_capability[teacher]")
    assert found.status == "unknown"
    assert "were cut at 1 tokens, so what it can do is not seen." in found.evidence
    assert "as responses were cut" in study.facts[0]
