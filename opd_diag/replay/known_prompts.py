"""The prompts of the prompts file, found again by what trainers record of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from opd_diag.errors import PromptsError
from opd_diag.records.prompt import Prompt
from opd_diag.tokenization import EncodedPrompt, TeacherView, Tokenizer, encode_prompts


@dataclass(frozen=True)
class KnownPrompts:
    """All prompts of a file, under one tokenizer and chat template."""

    tokenizer: Tokenizer
    prompts: Sequence[Prompt] = ()
    """Of the prompts file, in its order; those that the template does not take are passed over."""
    encoded: Sequence[EncodedPrompt] = ()
    """Prompts that are ids already."""
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    view: TeacherView = field(default_factory=TeacherView)
    """What the teacher sees."""

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self.prompts or self.encoded)

    @property
    def some_hinted(self) -> bool:
        """Whether the file gives the teacher something else to see."""
        return any(prompt.teacher_content is not None for prompt in self.prompts)

    @property
    def end(self) -> int:
        """The first index that no prompt has."""
        return max([len(self.prompts) - 1, *(p.index for p in self.encoded)], default=-1) + 1

    def with_text(self, text: str) -> EncodedPrompt | None:
        """Find the one prompt that decodes to `text`, with or without its special tokens; None where several do."""
        return self._by_text.get(text)

    def with_ids(self, ids: tuple[int, ...]) -> EncodedPrompt | None:
        """Find the prompt of which the student saw `ids`; the first, where the file repeats it."""
        return self._by_ids.get(ids)

    def of_messages(self, messages: Sequence[Mapping[str, Any]]) -> EncodedPrompt | None:
        """Apply the chat template to messages; None where it does not take them. Index and id are of no prompt yet."""
        return self._encoded(-1, Prompt(tuple(dict(m) for m in messages), ""))

    @cached_property
    def _all(self) -> list[EncodedPrompt]:
        made = (self._encoded(index, prompt) for index, prompt in enumerate(self.prompts))
        return [*self.encoded, *(prompt for prompt in made if prompt is not None)]

    @cached_property
    def _by_ids(self) -> dict[tuple[int, ...], EncodedPrompt]:
        found: dict[tuple[int, ...], EncodedPrompt] = {}
        for prompt in self._all:
            found.setdefault(prompt.ids, prompt)
        return found

    @cached_property
    def _by_text(self) -> dict[str, EncodedPrompt | None]:
        found: dict[str, EncodedPrompt | None] = {}
        for prompt in self._by_ids.values():
            for text in {self.tokenizer.text(prompt.ids), *self.tokenizer.stripped(prompt.ids)}:
                found[text] = None if text in found else prompt
        return found

    def _encoded(self, index: int, prompt: Prompt) -> EncodedPrompt | None:
        try:
            made = encode_prompts([prompt], self.tokenizer, template_kwargs=self.template_kwargs, teacher=self.view)
        except PromptsError:
            return None
        return replace(made[0], index=index)
