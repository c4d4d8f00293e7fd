"""What both models see as prompt: chat template, beginning of sequence, generation prompt, first differing id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jinja2

from opd_diag.records.selftest import Outcome, SelfTest
from opd_diag.replay.selftests.limits import LONGEST_AFTER
from opd_diag.tokenization import Tokenizer

NAME = "template"
Ids = tuple[int, ...]


def template_of_prompts(
    model: str,
    prompts: Sequence[Ids],
    tokenizer: Tokenizer,
    *,
    kwargs: dict[str, Any] | None = None,
    template: str | None = None,
) -> SelfTest:
    """Ask whether prompts begin and end as they should for one model.

    Parameters
    ----------
    model
        How messages call who sees them.
    prompts
        Ids of each, at least one, without those whose response is given in part.
    tokenizer
        The one that made them.
    kwargs
        Passed to the chat template.
    template
        The chat template, where it is not the tokenizer's.

    Returns
    -------
    SelfTest
        Fails where a prompt begins with two BOS, begins with padding, or holds a turn of the template and begins no
        turn of the model. What follows the header of that turn may be another than in the template of today, as
        recorded prompts may be older: that passes, and is said. Its value is the number of prompts that fail.
    """
    rendered = [_rendered(tokenizer, kwargs or {}, template, generation) for generation in (False, True)]
    ending = generation_prompt(*rendered)
    turns = _turn_ids(rendered[1], tokenizer)
    begins_turn = partial(_begins_turn, without=rendered[0], ending=ending, turns=turns, tokenizer=tokenizer)
    questions: list[tuple[Callable[[Ids], bool], str]] = [
        (lambda ids: _begins_twice(ids, tokenizer), "begin with two BOS"),
        (lambda ids: _begins_padded(ids, tokenizer), "begin with padding"),
        (
            lambda ids: bool(ending and turns & {*ids}) and not (_ends_with(ids, ending) or begins_turn(ids)),
            "do not end as generation prompt",
        ),
    ]
    wrong = {words: [ids for ids in prompts if is_wrong(ids)] for is_wrong, words in questions}
    found = {words: of for words, of in wrong.items() if of}
    n = max((len(of) for of in found.values()), default=0)
    if not found:
        in_turns = [ids for ids in prompts if ending and turns & {*ids}]
        how = f"end as {tokenizer.text(ending)!r}" if in_turns else "are text"
        older = [ids for ids in in_turns if not _ends_with(ids, ending)]
        if older:
            how = f"begin a turn of the model ({len(older)} in another way than the template's generation prompt)"
        said = f"All {len(prompts)} prompts of {model} {how}, none begins with two BOS or padding."
        return SelfTest(NAME, f"{model}, prompts", "pass", 0.0, 0.0, said, "")
    said = "; ".join(
        f"{len(of)} of {len(prompts)} prompts of {model} {words} ({_ends(of[0], tokenizer)})"
        for words, of in found.items()
    )
    advice = (
        "Encode the prompts as in training: the template once, with its generation prompt, no special tokens added to "
        "what it gives, and no padding."
    )
    return SelfTest(NAME, f"{model}, prompts", "fail", float(n), 0.0, f"{said}.", advice)


def template_of_pair(
    pairs: Sequence[tuple[Ids, Ids]], tokenizer: Tokenizer, *, at_home: Sequence[Ids | None], expected: bool
) -> SelfTest:
    """Hold the prompts that the teacher sees against the student's, and against those of its own template.

    Parameters
    ----------
    pairs
        (what the student sees, what the teacher sees) of each prompt.
    tokenizer
        To show ids as text.
    at_home
        What each prompt is under the template that comes with the teacher; None where that is not known.
    expected
        Whether the user asked for a difference.

    Returns
    -------
    SelfTest
        Its value is the number of prompts that differ.
    """
    lost = [pair for pair in pairs if pair[0] != pair[1] and pair[0][: len(pair[1])] == pair[1]]
    apart = [pair for pair in pairs if pair[0] != pair[1]]
    foreign = [(theirs, home) for (_, theirs), home in zip(pairs, at_home, strict=True) if home not in (None, theirs)]
    status: Outcome = "pass"
    about, advice = "student and teacher", ""
    if lost:
        first = lost[0]
        status, said = "fail", f"{len(lost)} of {len(pairs)} prompts of the teacher lack the end of the student's"
        advice = "What the teacher sees was cut: give it whole prompts."
    elif apart and expected:
        first, said = apart[0], f"{len(apart)} of {len(pairs)} prompts differ, as was asked for"
    elif apart:
        first, said = apart[0], f"{len(apart)} of {len(pairs)} prompts differ, as they were recorded"
    elif foreign and not expected:
        first = (foreign[0][0], foreign[0][1] or ())
        status, about = "warn", "teacher's own template"
        said = f"{len(foreign)} of {len(pairs)} prompts are others under the teacher's own chat template"
        advice = "Name the template that the teacher is to see with --teacher-template."
    else:
        said = f"Student and teacher see the same ids in all {len(pairs)} prompts."
        return SelfTest(NAME, "student and teacher", "pass", 0.0, 0.0, said, "")
    evidence = f"{said}; the first differing id is {_difference(first, tokenizer)}."
    return SelfTest(NAME, about, status, float(len(apart or foreign)), 0.0, evidence, advice)


def generation_prompt(without: Ids, with_it: Ids) -> Ids:
    """Give what the chat template adds for a response to begin; empty where there is no template or it adds nothing."""
    n = len(without)
    return with_it[n:] if with_it[:n] == without else ()


def _rendered(tokenizer: Tokenizer, kwargs: dict[str, Any], template: str | None, generation: bool) -> Ids:
    if not (template or tokenizer.hf.chat_template):
        return ()
    try:
        ids: list[int] = tokenizer.hf.apply_chat_template(
            [{"role": "user", "content": "a"}],
            chat_template=template,
            add_generation_prompt=generation,
            tokenize=True,
            return_dict=False,
            **kwargs,
        )
    except (jinja2.TemplateError, ValueError, TypeError):  # a template that wants other turns says nothing here
        return ()
    return tuple(ids)


def _turn_ids(rendered: Ids, tokenizer: Tokenizer) -> set[int]:
    """Give the special ids of the template that are no BOS: what holds one of them was made by it."""
    return {i for i in rendered if tokenizer.token(i).special} - {tokenizer.hf.bos_token_id}


def _begins_twice(ids: Ids, tokenizer: Tokenizer) -> bool:
    bos = tokenizer.hf.bos_token_id
    return bos is not None and len(ids) > 1 and ids[:2] == (bos, bos)


def _begins_padded(ids: Ids, tokenizer: Tokenizer) -> bool:
    hf = tokenizer.hf
    return hf.pad_token_id is not None and hf.pad_token_id != hf.bos_token_id and ids[0] == hf.pad_token_id


def _ends_with(ids: Ids, ending: Ids) -> bool:
    """Tell whether the generation prompt stands at the end, or little follows it."""
    n = len(ending)
    return any(ids[i : i + n] == ending for i in range(max(0, len(ids) - n - LONGEST_AFTER), len(ids) - n + 1))


def _begins_turn(ids: Ids, *, without: Ids, ending: Ids, turns: set[int], tokenizer: Tokenizer) -> bool:
    """Tell whether a turn of the model begins near the end, whatever follows its header: a template may have changed.

    It does where the last marker of a turn comes with no end of a turn after it, and is not the user's. A header that
    is only begun was cut.
    """
    at = next((n for n, i in enumerate(ending) if i in turns), None)
    if at is None or ending[at] not in ids:
        return False
    marker, header = ending[at], _header(ending[at:], tokenizer)
    last = _after_last(ids, marker)
    users = _after_last(without, marker)[1:2]
    is_users = users != ending[at + 1 : at + 2] and last[1:2] == users and bool(users)
    is_closed = bool({*last[1:]} & (turns - {*ending}))
    is_cut = len(last) < len(header) and header[: len(last)] == last
    return not (is_users or is_closed or is_cut) and len(last) <= len(ending) + LONGEST_AFTER


def _header(ending: Ids, tokenizer: Tokenizer) -> Ids:
    """Give the generation prompt up to the end of its first line, without a switch for thinking such as <think>."""
    for n in range(1, len(ending)):
        if not tokenizer.token(ending[n]).special and tokenizer.text(ending[n:]).startswith("<"):
            return ending[:n]
        if "\n" in tokenizer.text([ending[n]]):
            return ending[: n + 1]
    return ending


def _after_last(ids: Ids, marker: int) -> Ids:
    """Give what begins with the last occurrence of an id; nothing where there is none."""
    return next((ids[n:] for n in range(len(ids) - 1, -1, -1) if ids[n] == marker), ())


def _ends(ids: Ids, tokenizer: Tokenizer) -> str:
    return f"{tokenizer.text(ids[:4])!r} … {tokenizer.text(ids[-4:])!r}"


def _difference(pair: tuple[Ids, Ids], tokenizer: Tokenizer) -> str:
    ours, theirs = pair
    shorter = min(len(ours), len(theirs))
    at = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
    texts = [f"{ids[at]} ({tokenizer.text([ids[at]])!r})" if at < len(ids) else "none" for ids in pair]
    return f"number {at}, {texts[0]} and {texts[1]}"
