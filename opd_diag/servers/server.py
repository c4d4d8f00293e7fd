"""What every server is, whatever its engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from opd_diag.errors import ServerError
from opd_diag.servers.answers import ALL, Answer, Question, Sampled
from opd_diag.text import visible

NAMES = {"vllm": "vLLM", "sglang": "SGLang"}
"""Engines, as their makers write them."""


MEND = "Update the server, and ask it without anything between that changes answers."
"""What to do about answers of a server that cannot be."""

LOGITS = {
    "vllm": "These are logits: start the server with --logprobs-mode raw_logprobs.",
    "sglang": "These are no log-probabilities at temperature 1: take a release that answers them.",
}
"""What to do about values of a server that cannot be log-probabilities, by engine."""


NOTHING_ELSE = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Ways of sampling that are put aside; servers take them from generation_config.json, or from how they were started."""


@dataclass(frozen=True)
class About:
    """What a server says of itself, and what was found out when it was first asked."""

    engine: str
    """``"vllm"`` or ``"sglang"``."""
    version: str | None
    model: str
    """The name used in requests."""
    root: str | None
    """Path or hub id of the weights, where the server says it."""
    context: int | None
    """The most tokens of one sequence, and of what is generated after it."""
    top_limit: int | None
    """The most log-probabilities of a row; None where there is no limit."""
    exact_ids: bool
    """Whether log-probabilities at given ids can be asked."""
    why_not_exact: str | None
    """Why they cannot, and what to do, as sentences."""
    sees_all: bool
    """Whether a row of the whole vocabulary can be asked."""
    vocab_size: int | None = None
    """V, the ids of a row of the whole vocabulary; None where the server does not tell."""
    url: str = ""
    """Where it is, without its key; empty for a model in this process."""

    @property
    def name(self) -> str:
        """How messages call it, as ``vLLM at http://127.0.0.1:8000`` or ``vLLM with models/teacher``."""
        return f"{NAMES[self.engine]} at {self.url}" if self.url else f"{NAMES[self.engine]} with {visible(self.model)}"

    @property
    def mend(self) -> str:
        """What to do about answers that cannot be."""
        if not self.url:
            return f"Install another release of {NAMES[self.engine]}."
        return MEND

    @property
    def mend_logits(self) -> str:
        """What to do about values that cannot be log-probabilities."""
        return LOGITS[self.engine] if self.url else self.mend


@runtime_checkable
class Server(Protocol):
    """A model behind an address, or in an engine in this process."""

    about: About

    def answer(self, question: Question) -> Answer:
        """Answer a question; any number of threads may ask at once.

        Raises
        ------
        ServerError
            The server cannot answer this, does not answer, or answers what it must not.
        """

    def text(self, ids: Sequence[int]) -> str | None:
        """Give the server's own text of ids, special tokens kept; None where it does not offer that.

        Raises
        ------
        ServerError
            The server does not answer.
        """

    def sampled(
        self, prompt_ids: Sequence[int], *, n: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[Sampled]:
        """Sample n responses to a prompt. What the model's folder says of top-k, penalties and the like is put aside.

        Raises
        ------
        ServerError
            The server does not answer, or answers what it must not.
        """


def refuse_what_it_cannot(about: About, question: Question) -> None:
    """Refuse a question that the server is known not to answer.

    Raises
    ------
    ServerError
        The sequence is too long, more of a row is wanted than the server gives, or ids that it cannot be asked for.
    """
    needed = len(question.sent) + 1  # both engines keep room for one token more
    if about.context is not None and needed > about.context:
        raise ServerError(
            f"{about.name} reads at most {about.context} tokens, {needed} are needed for a sequence of "
            f"{len(question.ids)}. {CONTEXT[about.engine].format(needed) if about.url else 'Leave longer ones out.'}"
        )
    refuse_more_than_its_limit(about, question.top)
    if question.at is not None and not about.exact_ids:
        raise ServerError(f"{about.name} cannot be asked for given ids. {about.why_not_exact}")


def refuse_more_than_its_limit(about: About, top: int) -> None:
    """Refuse more log-probabilities a row than the server gives.

    Raises
    ------
    ServerError
        `top` is above the server's limit or above the vocabulary, or all are wanted of a server that does not show all.
    """
    if top == ALL and not about.sees_all:
        if about.top_limit is None:
            raise ServerError(
                f"{about.name} does not give the whole vocabulary, which is wanted. Ask for a number of ids a row."
            )
        raise ServerError(
            f"{about.name} gives at most {about.top_limit} ids a row; the whole vocabulary is wanted. Start it with "
            "--max-logprobs -1, or ask for fewer."
        )
    if about.top_limit is not None and top > about.top_limit:
        raise ServerError(
            f"{about.name} gives at most {about.top_limit} ids a row, {top} are wanted. Start it with --max-logprobs "
            f"{top}, or ask for at most {about.top_limit}."
        )
    if about.vocab_size is not None and top > about.vocab_size:
        raise ServerError(
            f"The model of {about.name} has {about.vocab_size} ids, {top} of a row are wanted. Ask for at most "
            f"{about.vocab_size}."
        )


CONTEXT = {
    "vllm": "Start it with --max-model-len {}, or leave longer sequences out.",
    "sglang": "Start it with --context-length {}, or leave longer sequences out.",
}
"""What to do about a sequence that is too long, by engine."""
