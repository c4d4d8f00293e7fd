"""Prompts chosen and compared end to end, with tiny models; every number on the page is one of the tables."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import tiny_run as tiny

from opd_diag.errors import InputError, StoreError
from opd_diag.records.prompt import load_prompts
from opd_diag.records.rollout import load_rollouts
from opd_diag.report.study import write_study
from opd_diag.studies import prompts

OPTIONS = {"max_new_tokens": 6}
MASS = "student_overlap_mass"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return tiny.write_prompts(tmp_path_factory.mktemp("prompts") / "many.jsonl", n=24, level="easy")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="module")
def selected(tiny_run, many, out):
    return prompts(tiny_run.student, tiny_run.checkpoint(10), many, select=10, seed=3, out=out, by=MASS, **OPTIONS)


def asked(tiny_run, file, out, **options):
    return prompts(tiny_run.student, tiny_run.checkpoint(10), file, out=out, **OPTIONS | options)


def status(study):
    return {verdict.name: verdict.status for verdict in study.verdicts}


class TestSelection:
    def test_what_it_gives(self, selected):
        assert list(status(selected)) == ["selection_alignment", "selection_entropy", "selection_lead"]
        assert set(selected.tables) == {"prompts", "reliability", "held_out"}
        assert selected.subject == "student"
        table = selected.tables["prompts"]
        assert table["n_rollouts"].tolist() == [4] * 24
        assert table["is_chosen"].sum() == 10
        assert table["outcome"].value_counts()[["top", "drawn"]].tolist() == [8, 2]
        assert table["reason"].str.len().min() > 10

    def test_numbers_are_means_over_responses(self, selected, out):
        rollouts = load_rollouts(out / "replay" / "prompts" / "rollouts" / "step-000000.jsonl")
        lengths = pd.Series([len(r.response_ids) for r in rollouts]).groupby([r.prompt_index for r in rollouts]).mean()
        assert selected.tables["prompts"]["response_length"].tolist() == lengths.tolist()

    def test_files_hold_the_chosen_prompts(self, selected, many, out):
        table = selected.tables["prompts"]
        chosen = table.loc[table["is_chosen"], "prompt_id"].tolist()
        by_id = {prompt.id: prompt for prompt in load_prompts(many)}
        assert load_prompts(out / "selection" / "prompts.jsonl") == [by_id[i] for i in chosen]
        kept = [json.loads(line) for line in (out / "selection" / "prompts.jsonl").read_text().splitlines()]
        assert all(record["level"] == "easy" for record in kept)
        assert len(pd.read_parquet(out / "selection" / "verl.parquet")) == 10

    def test_a_second_call_says_the_same_and_samples_nothing(self, selected, tiny_run, many, out, monkeypatch):
        from opd_diag.replay import sampled

        def refused(*args, **kwargs):
            raise AssertionError("sampled again")

        monkeypatch.setattr(sampled, "sample_rollouts", refused)
        again = asked(tiny_run, many, out, select=10, seed=3, by=MASS)
        assert again.tables["prompts"].equals(selected.tables["prompts"])

    def test_by_reverse_kl_the_first_are_those_with_most(self, selected, tiny_run, many, out):
        study = asked(tiny_run, many, out, select=5, seed=3, by="reverse_kl_of_response", out_of_distribution=0.0)
        table = study.tables["prompts"]
        able = table[table["outcome"] != "low entropy"]
        least = table.loc[table["is_chosen"], "reverse_kl_of_response"].min()
        assert (able["reverse_kl_of_response"] > least).sum() == 4

    def test_its_page(self, selected, out):
        page = write_study(selected, out)
        text = page.read_text()
        for words in ("Chosen prompts and the others", "Why a prompt is in or out", "kept against entropy collapse"):
            assert words in text
        assert (out / "prompts.csv").is_file()
        assert (out / "selection.svg").is_file()
        assert len(selected.excerpts) == 5
        assert all(set(of) == {"student", "teacher"} for of in selected.excerpts)


class TestWhatCannotBeTold:
    def test_one_response_to_each_prompt(self, tiny_run, many, tmp_path):
        study = asked(tiny_run, many, tmp_path, select=5, rollouts_per_prompt=1, by=MASS)
        assert set(status(study).values()) == {"unknown"}
        assert any(line.startswith("One response to each prompt: single prompts have no") for line in study.measured)
        assert study.tables["prompts"]["student_entropy_ci_low"].isna().all()
        assert study.tables["prompts"]["is_chosen"].sum() == 5
        assert study.headline.endswith("whether they differ beyond chance is not established")

    def test_all_responses_cut(self, tiny_run, tmp_path):
        ten = tiny.write_prompts(tmp_path / "ten.jsonl", n=10)
        study = asked(tiny_run, ten, tmp_path / "out", select=5, rollouts_per_prompt=2, max_new_tokens=1, by=MASS)
        assert study.tables["prompts"]["truncation_rate"].tolist() == [1.0] * 10
        assert {verdict.evidence for verdict in study.verdicts} == {
            "All 10 responses were cut at the limit: what the models would do after it is not seen."
        }
        assert set(status(study).values()) == {"unknown"}
        assert "100% of the student's responses were cut at the limit." in study.measured
        with pytest.raises(InputError) as caught:  # answers are known, so that a lead would rank unless told otherwise
            asked(tiny_run, ten, tmp_path / "out", select=5, rollouts_per_prompt=2, max_new_tokens=1)
        assert str(caught.value) == (
            "Every prompt has the same teacher_lead, 0.00, so it ranks none. Student and teacher solve all prompts "
            "alike, or none. Rank by another quantity with --by."
        )

    def test_three_prompts(self, tiny_run, tmp_path, monkeypatch):
        few = tiny.write_prompts(tmp_path / "few.jsonl", n=3)
        monkeypatch.setattr("opd_diag.verdicts.prompts.all_cut", lambda *of: None)  # nearly all are, of such models
        study = asked(tiny_run, few, tmp_path / "out", select=2, rollouts_per_prompt=2, by=MASS)
        assert set(status(study).values()) == {"unknown"}
        assert study.verdicts[0].evidence == (
            "2 prompts are too few for an interval that means something; at least 5 are needed."
        )

    def test_no_answers(self, tiny_run, tmp_path):
        (tmp_path / "plain.txt").write_text("".join(f"{i}+{i}\n" for i in range(12)))
        study = asked(tiny_run, tmp_path / "plain.txt", tmp_path / "out", select=6, rollouts_per_prompt=2)
        lead = study.verdicts[2]
        assert lead.status == "unknown"
        assert lead.evidence.startswith("No response was graded; reverse KL of a response on the chosen prompts is ")
        assert any("none for verl" in line for line in study.measured)
        assert all(set(of) == {"student"} for of in study.excerpts)
        with pytest.raises(InputError, match=r"^--select 6 is more than the 0 of 12 prompts that teacher_lead"):
            asked(
                tiny_run, tmp_path / "plain.txt", tmp_path / "out", select=6, rollouts_per_prompt=2, by="teacher_lead"
            )

    def test_nothing_asked(self, tiny_run, many, tmp_path):
        with pytest.raises(InputError) as caught:
            asked(tiny_run, many, tmp_path)
        assert str(caught.value) == (
            "Nothing to do: say how many prompts to choose with --select, or what to compare with --against (prompts) "
            "or --template (a chat template)."
        )

    @pytest.mark.parametrize("which", ["student", "teacher"])
    def test_the_models_folders_are_never_written_into(self, own_run, many, which):
        model = {"student": own_run.student, "teacher": own_run.checkpoint(10)}[which]
        with pytest.raises(StoreError) as caught:
            asked(own_run, many, model / "out", select=5)
        assert str(caught.value) == (
            f"The output folder {model / 'out'} lies inside the model folder {model}, which opd-diag never writes to. "
            "Choose another with --out."
        )
        assert not (model / "out").exists()


@pytest.fixture(scope="module")
def compared(tiny_run, many, tmp_path_factory):
    folder = tmp_path_factory.mktemp("templates")
    (folder / "same.jinja").write_text(tiny.TEMPLATE)
    (folder / "loud.jinja").write_text("{{ messages[0].content }}!!<assistant>")
    files = [folder / "same.jinja", folder / "loud.jinja"]
    return asked(tiny_run, many, folder / "out", templates=files, rollouts_per_prompt=2, max_new_tokens=12)


class TestComparison:
    def test_the_same_template_is_no_other(self, compared):
        assert status(compared)["template[same]"] == "pass"
        rows = compared.tables["sets"].query("second_name == 'same'").set_index("quantity")
        assert rows.loc["reverse_kl", ["value", "ci_low", "ci_high"]].tolist() == [0.0, 0.0, 0.0]

    def test_another_template_changes_what_both_see(self, compared, tmp_path):
        rows = compared.tables["sets"].query("second_name == 'loud'").set_index("quantity")
        assert rows["is_paired"].all()
        assert rows["n_second"].tolist()[0] == 24
        low, value, high = rows.loc["reverse_kl", ["ci_low", "value", "ci_high"]]
        assert value != 0
        assert low < value < high
        assert [shown.title for shown in compared.shown] == ["Side by side"]
        assert [picture.name for picture in compared.pictures] == ["student_overlap_mass", "reverse_kl"]
        assert "loud" in write_study(compared, tmp_path).read_text()

    def test_other_prompts(self, tiny_run, many, tmp_path):
        (tmp_path / "others.txt").write_text("".join(f"what of {i}\n" for i in range(12)))
        study = asked(tiny_run, many, tmp_path / "out", against=tmp_path / "others.txt", rollouts_per_prompt=2)
        assert list(status(study)) == ["prompt_set"]
        rows = study.tables["sets"].set_index("quantity")
        assert not rows["is_paired"].any()
        assert rows.loc["reverse_kl", ["n_first", "n_second"]].tolist() == [24, 12]
        difference = rows.loc["reverse_kl", "second"] - rows.loc["reverse_kl", "first"]
        assert rows.loc["reverse_kl", "value"] == pytest.approx(difference)
        assert math.isnan(rows.loc["teacher_lead", "value"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_what_is_true_by_construction_of_the_bundled_pair(seed, tmp_path):
    """The teacher `new` leads on products alone: aligned are sums, and a lead have products."""
    from opd_diag.diagnosis import demo_runs

    data = demo_runs()[0].parent
    options = {"select": 24, "max_new_tokens": 48, "seed": seed, "out": tmp_path}
    found = {
        by: prompts(data / "student", data / "teachers" / "new", data / "prompts.jsonl", by=by, **options)
        for by in ("student_overlap_mass", "teacher_lead")
    }
    groups = {by: study.tables["prompts"].query("outcome == 'top'")["group"] for by, study in found.items()}
    assert np.mean(groups["student_overlap_mass"] == "multiply") < 0.1
    assert np.mean(groups["teacher_lead"] == "multiply") > 0.9
    assert status(found["student_overlap_mass"])["selection_alignment"] == "pass"
    assert status(found["teacher_lead"])["selection_alignment"] == "pass"
    assert status(found["teacher_lead"])["selection_lead"] == "pass"
