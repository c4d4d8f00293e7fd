"""The same plan under another chat template, which both models then see."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from opd_diag.errors import PromptsError
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.prompts import view_of
from opd_diag.replay.served import check_ids_of_server
from opd_diag.tokenization import EncodedPrompt, Tokenizer, check_same_ids, encode_prompts


def with_template(plan: ReplayPlan, template: str, name: str) -> ReplayPlan:
    """Encode the prompts of a plan by another chat template.

    As every chat template it runs in transformers' sandbox. Where the teacher has a template of its own
    (``--teacher-template``), it keeps that.

    Parameters
    ----------
    plan
        Whose prompts are chat messages.
    template
        Text of the template (jinja).
    name
        What messages call it.

    Raises
    ------
    PromptsError
        A prompt is text, which no template is applied to, or the template fails.
    TokenizerMismatchError
        An id that the template brings means different text to student and teacher.
    """
    bare = next((p.prompt.id for p in plan.prompts if isinstance(p.prompt.content, str)), None)
    if bare is not None:
        raise PromptsError(
            f"Prompt {bare} is text, and a chat template is applied to messages alone. Give the prompts as chat "
            "messages, or leave --template out."
        )
    tokenizer = _with(plan.tokenizer, template)
    try:
        encoded = _encoded(plan, tokenizer)
    except PromptsError as error:
        raise PromptsError(f"Template {name}: {error}") from error
    if plan.teacher_tokenizer is not None:
        check_same_ids({i for p in encoded for i in (*p.ids, *p.teacher_ids)}, tokenizer, plan.teacher_tokenizer)
    elif plan.served is not None:
        check_ids_of_server(plan.served, tokenizer, {i for p in encoded for i in (*p.ids, *p.teacher_ids)})
    return replace(plan, prompts=tuple(encoded), tokenizer=tokenizer)


def _encoded(plan: ReplayPlan, tokenizer: Tokenizer) -> Sequence[EncodedPrompt]:
    settings = plan.settings
    return encode_prompts(
        [p.prompt for p in plan.prompts],
        tokenizer,
        template_kwargs=settings.chat_template_kwargs,
        teacher=view_of(settings),
    )


def _with(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """Give the tokenizer with another chat template; the one it came from stays as it is."""
    hf = copy.copy(tokenizer.hf)
    hf.chat_template = template
    return Tokenizer(hf, tokenizer.source)
