"""Plans of sets of prompts: names, folders, and all that is refused before a model is loaded."""

from __future__ import annotations

import pytest
import tiny_run as tiny

from opd_diag.errors import InputError
from opd_diag.studies import prompts as prompts_study
from opd_diag.studies.scored_prompts import OWN_TEMPLATE, plans_of, same_ids, store_folder


def planned(tiny_run, *, templates=(), against=None, select=None, by=None, prompts=None, **options):
    prompts = prompts or tiny_run.prompts
    return plans_of(tiny_run.student, tiny_run.teacher, prompts, templates, against, select, options, by)


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "loud.jinja"
    path.write_text("{{ messages[0].content }}!<assistant>")
    return path


def test_one_set_with_all_its_prompts_and_four_responses_each(tiny_run):
    plans = planned(tiny_run)
    assert list(plans) == ["prompts"]
    settings = plans["prompts"].settings
    assert (settings.max_prompts, settings.rollouts_per_prompt) == (tiny.N_PROMPTS, 4)
    assert settings.states == ("on-policy", "teacher")


def test_what_is_given_wins(tiny_run):
    settings = planned(tiny_run, max_prompts=5, rollouts_per_prompt=1, seed=None)["prompts"].settings
    assert (settings.max_prompts, settings.rollouts_per_prompt, settings.seed) == (5, 1, 0)


def test_the_teacher_answers_only_what_can_be_graded(tiny_run, tmp_path):
    (tmp_path / "plain.txt").write_text("1+1\n2+2\n")
    assert planned(tiny_run, prompts=tmp_path / "plain.txt")["plain"].settings.states == ("on-policy",)


def test_templates_and_another_set(tiny_run, tmp_path, template):
    other = tiny.write_prompts(tmp_path / "other.jsonl")
    plans = planned(tiny_run, templates=[template], against=other)
    assert list(plans) == ["prompts", "loud", "other"]
    assert plans["loud"].tokenizer.text(plans["loud"].prompts[0].ids) == "0+0!<assistant>"
    assert plans["other"].prompts == plans["prompts"].prompts
    folders = [store_folder(tmp_path, name, plans).name for name in plans]
    assert folders == ["prompts", "1-loud", "2-other"]
    assert list(planned(tiny_run, templates=[template])) == [OWN_TEMPLATE, "loud"]


def test_ids_pair_prompts_only_where_both_files_name_them(tiny_run, tmp_path):
    named, fewer = tiny.write_prompts(tmp_path / "named.jsonl"), tiny.write_prompts(tmp_path / "fewer.jsonl", n=5)
    (tmp_path / "a.txt").write_text("1+1\n2+2\n")
    (tmp_path / "b.txt").write_text("3+3\n4+4\n")
    own, other = planned(tiny_run, against=named).values()
    assert same_ids(own, other)
    own, other = planned(tiny_run, against=fewer).values()
    assert not same_ids(own, other)
    own, other = planned(tiny_run, prompts=tmp_path / "a.txt", against=tmp_path / "b.txt").values()
    assert [p.prompt.id for p in own.prompts] == [p.prompt.id for p in other.prompts]  # line numbers
    assert not same_ids(own, other)


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        planned(*arguments, **options)
    return str(caught.value)


def test_refusals(tiny_run, tmp_path, template):
    assert refusal(tiny_run, select=9) == "--select 9 is more than the 8 prompts there are. Select fewer."
    assert (
        refusal(tiny_run, templates=[template, template]) == "Two templates are called loud. Rename one of the files."
    )
    assert refusal(tiny_run, against=tiny_run.prompts) == (
        f"--against names {tiny_run.prompts}, which --prompts names too. Name another file."
    )
    missing = tmp_path / "none.jinja"
    assert refusal(tiny_run, templates=[missing]) == (
        f"Chat template {missing} cannot be read: [Errno 2] No such file or directory: '{missing}'. Name a file with "
        "--template."
    )


def test_a_template_called_as_the_prompts_file_is(tiny_run, tmp_path, template):
    other, prompts = tiny.write_prompts(tmp_path / "other.jsonl"), tiny.write_prompts(tmp_path / "loud.jsonl")
    assert refusal(tiny_run, prompts=prompts, templates=[template], against=other) == (
        f"Template {template} and the prompts file {prompts} are both called loud. Rename one of the files."
    )


def test_a_prompts_file_called_as_a_template_is_has_its_whole_path(tiny_run, tmp_path, template, monkeypatch):
    path = tiny.write_prompts(tmp_path / "loud.jsonl")
    plans = planned(tiny_run, templates=[template], against=path)
    assert list(plans) == ["prompts", "loud", str(path)]
    monkeypatch.chdir(tmp_path)
    path.rename("loud")
    assert refusal(tiny_run, templates=[template], against="loud") == (
        "--against loud and a template are both called loud. Rename one of the files."
    )


def test_by_the_teachers_lead_only_prompts_with_an_answer_count(tiny_run, tmp_path):
    lines = ['{"prompt": "1+1", "answer": "2"}\n', *(f'{{"prompt": "{i}+2"}}\n' for i in range(3))]
    (tmp_path / "some.jsonl").write_text("".join(lines))
    of = {"prompts": tmp_path / "some.jsonl", "select": 2}
    assert refusal(tiny_run, by="teacher_lead", **of) == (
        "--select 2 is more than the 1 of 4 prompts that teacher_lead can be known of, those with an answer. Select "
        "fewer, give answers, or rank by another quantity with --by."
    )
    assert list(planned(tiny_run, by="reverse_kl_of_response", **of)) == ["some"]
    assert list(planned(tiny_run, by="teacher_lead", **of | {"select": 1})) == ["some"]


@pytest.mark.parametrize("option", ["prompts", "against"])
def test_a_file_that_the_chosen_prompts_would_replace(tiny_run, tmp_path, option):
    out = tmp_path / "out"
    (out / "selection").mkdir(parents=True)
    mine = tiny.write_prompts(out / "selection" / "prompts.jsonl")
    before = mine.read_bytes()
    files = {"prompts": tiny_run.prompts, option: mine}
    with pytest.raises(InputError) as caught:
        prompts_study(tiny_run.student, tiny_run.teacher, select=3, out=out, max_new_tokens=2, **files)
    assert str(caught.value) == (
        f"--{option} {mine} lies in {out / 'selection'}, whose files this command replaces. Choose another folder with "
        "--out, or copy the file elsewhere first."
    )
    assert mine.read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["selection"]


def test_the_lead_is_refused_before_anything_is_sampled(tiny_run, tmp_path):
    (tmp_path / "plain.txt").write_text("1+1\n2+2\n")
    with pytest.raises(InputError, match=r"^--select 2 is more than the 0 of 2 prompts that teacher_lead can be known"):
        prompts_study(
            tiny_run.student,
            tiny_run.teacher,
            tmp_path / "plain.txt",
            select=2,
            by="teacher_lead",
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
