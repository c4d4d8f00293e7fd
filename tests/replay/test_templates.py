"""Plans under another chat template: both models see it, and what cannot be is refused."""

from __future__ import annotations

import pytest
import tiny_run as tiny

from opd_diag.errors import PromptsError
from opd_diag.records.settings import Settings
from opd_diag.replay import plan_models
from opd_diag.replay.templates import with_template

OTHER = "{% for m in messages %}<{{ m.role }}>{{ m.content|upper }}.{% endfor %}<assistant>"


def planned(tiny_run, prompts=None, **options):
    return plan_models(
        Settings(
            student=str(tiny_run.student),
            teacher=str(tiny_run.teacher),
            prompts=str(prompts or tiny_run.prompts),
            **options,
        )
    )


def test_both_models_see_it(tiny_run):
    plan = planned(tiny_run)
    changed = with_template(plan, OTHER, "other")
    assert [plan.tokenizer.text(p.ids) for p in plan.prompts[:2]] == ["<user>0+0<assistant>", "<user>1+1?<assistant>"]
    assert [changed.tokenizer.text(p.ids) for p in changed.prompts[:2]] == [
        "<user>0+0.<assistant>",
        "<user>1+1?.<assistant>",
    ]
    assert all(p.teacher_ids == p.ids for p in changed.prompts)
    assert [p.prompt for p in changed.prompts] == [p.prompt for p in plan.prompts]
    assert changed.prompts_key() != plan.prompts_key()


def test_the_plan_it_came_from_keeps_its_template(tiny_run):
    plan = planned(tiny_run)
    with_template(plan, OTHER, "other")
    assert plan.tokenizer.hf.chat_template == tiny.TEMPLATE
    assert with_template(plan, tiny.TEMPLATE, "same").prompts == plan.prompts


def test_a_template_of_the_teachers_own_stays(tiny_run, tmp_path):
    (tmp_path / "teacher.jinja").write_text("{{ messages[0].content }}!<assistant>")
    plan = with_template(planned(tiny_run, teacher_template=str(tmp_path / "teacher.jinja")), OTHER, "other")
    assert plan.tokenizer.text(plan.prompts[0].teacher_ids) == "0+0!<assistant>"


def test_text_has_no_template(tiny_run, tmp_path):
    (tmp_path / "prompts.txt").write_text("2 + 2 =\n")
    with pytest.raises(PromptsError) as caught:
        with_template(planned(tiny_run, tmp_path / "prompts.txt"), OTHER, "other")
    assert str(caught.value) == (
        "Prompt 1 is text, and a chat template is applied to messages alone. Give the prompts as chat messages, or "
        "leave --template out."
    )


def test_a_template_that_fails_is_named(tiny_run):
    with pytest.raises(PromptsError) as caught:
        with_template(planned(tiny_run), "{{ raise_exception('no system message') }}", "strict")
    assert str(caught.value) == "Template strict: Prompt p0: the chat template fails: no system message."


def test_a_template_reaches_nothing_outside_its_sandbox(tiny_run):
    hostile = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(PromptsError, match=r"^Template hostile: Prompt p0: the chat template fails: .*unsafe"):
        with_template(planned(tiny_run), hostile, "hostile")
