"""The self-tests of what a report is given: prompts, templates, tokenizers, and responses as they were recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opd_diag.errors import PromptsError
from opd_diag.records.rollout import Rollout
from opd_diag.records.selftest import SelfTest
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.selftests.template import Ids, template_of_pair, template_of_prompts
from opd_diag.replay.selftests.vocabulary import vocabulary_map, vocabulary_of_server
from opd_diag.replay.served import check_ids_of_server
from opd_diag.tokenization import EncodedPrompt, encode_prompts, read_template


def tests_of_inputs(plan: ReplayPlan, rollouts: Iterable[Rollout]) -> list[SelfTest]:
    """Ask what needs no model.

    Parameters
    ----------
    plan
        Of the report.
    rollouts
        Responses whose ids occur.
    """
    settings = plan.settings
    whole = [p for p in plan.prompts if not _is_continued(p)]
    tests = []
    if whole:
        kwargs = settings.chat_template_kwargs
        tests.append(template_of_prompts("student", [p.ids for p in whole], plan.tokenizer, kwargs=kwargs))
        if any(p.ids != p.teacher_ids for p in whole):
            template = None if settings.teacher_template is None else read_template(settings.teacher_template)
            seen = [p.teacher_ids for p in whole]
            tests.append(template_of_prompts("teacher", seen, plan.tokenizer, kwargs=kwargs, template=template))
    asked = bool(settings.teacher_template or settings.teacher_system_prompt)
    tests.append(
        template_of_pair(
            [(p.ids, p.teacher_ids) for p in plan.prompts],
            plan.tokenizer,
            at_home=_at_home(plan),
            expected=asked or any(p.prompt.teacher_content is not None for p in plan.prompts),
        )
    )
    ids = {i for p in plan.prompts for i in (*p.ids, *p.teacher_ids)}
    ids.update(i for r in rollouts for i in r.response_ids)
    if plan.served and plan.teacher_tokenizer is None and check_ids_of_server(plan.served, plan.tokenizer, ids):
        return [*tests, vocabulary_of_server(len(ids))]
    return [*tests, vocabulary_map(ids, plan.tokenizer, plan.teacher_tokenizer)]


def _is_continued(prompt: EncodedPrompt) -> bool:
    """Tell whether the prompt brings the beginning of the response."""
    content = prompt.prompt.content
    return not isinstance(content, str) and content[-1]["role"] == "assistant"


def _at_home(plan: ReplayPlan) -> Sequence[Ids | None]:
    """Give each prompt as the teacher's own tokenizer and template make it; None where that is not known."""
    theirs = plan.teacher_tokenizer
    unknown: list[Ids | None] = [None] * len(plan.prompts)
    if plan.recorded or plan.settings.prompts is None or theirs is None or theirs.source == plan.tokenizer.source:
        return unknown
    try:
        made = encode_prompts(
            [p.prompt for p in plan.prompts], theirs, template_kwargs=plan.settings.chat_template_kwargs
        )
    except PromptsError:  # it has no template, or one that cannot take these messages: the student's is all there is
        return unknown
    return [p.ids for p in made]
