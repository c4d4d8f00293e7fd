"""Commands that take options of another one: the same names, help and defaults, written once."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from opd_diag.cli.terminal import shows_errors
from opd_diag.errors import InputError

Command = Callable[..., None]


def takes_options_of(other: Command, names: Sequence[str]) -> Callable[[Command], Command]:
    """Let a command that ends in ``**options`` take some parameters of another one, and show its errors.

    What it names itself comes first. ``chat_template_kwargs`` is read as JSON on the way.

    Raises
    ------
    ValueError
        The other command has no such parameter.
    """
    theirs = inspect.signature(other, eval_str=True).parameters
    unknown = [name for name in names if name not in theirs]
    if unknown:
        raise ValueError(f"{other.__name__} has no {', '.join(unknown)}.")

    def taking(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        mine = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = [theirs[name] for name in names if name not in {p.name for p in mine}]
        every = [p.replace(kind=p.KEYWORD_ONLY) for p in (*mine, *taken)]

        @shows_errors
        def called(**given: Any) -> None:
            if "chat_template_kwargs" in given:
                given["chat_template_kwargs"] = json_option(given["chat_template_kwargs"])
            command(**given)

        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = own.replace(parameters=every)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in every}
        return called

    return taking


OF_MODELS = (
    "prompts", "tokenizer", "base_model", "k", "rollouts_per_prompt", "max_prompts", "max_new_tokens", "temperature",
    "top_p", "student_temperature", "teacher_temperature", "teacher_template", "teacher_system_prompt",
    "chat_template_kwargs", "seed", "sampler", "device", "device_map", "dtype", "trust_remote_code", "allow_pickle",
    "teacher_model", "teacher_top", "teacher_tokenizer", "requests", "plan", "quiet",
)  # fmt: skip
"""Options of ``report`` that make sense where models are asked and no run is."""


def json_option(text: str | None) -> dict[str, Any] | None:
    """Read ``--chat-template-kwargs``.

    Raises
    ------
    InputError
        It is no JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--chat-template-kwargs must be JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"--chat-template-kwargs must be a JSON object, found {type(value).__name__}.")
    return value
