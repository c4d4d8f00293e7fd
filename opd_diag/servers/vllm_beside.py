"""One model in vLLM, in a process of its own, for its responses: begun, asked, believed after checks, and ended.

What comes back is checked like the answer of any server: ids outside of the vocabulary, values that are no
log-probabilities and responses that end where they must not are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from opd_diag.errors import CheckpointError, InputError, ModelError, OpdDiagError, ServerError
from opd_diag.servers.answers import Sampled, whole
from opd_diag.servers.child import Child, NoAnswer, words
from opd_diag.servers.reading import sampled_of
from opd_diag.servers.server import About

MODULE = "opd_diag.servers.vllm_child"
"""What runs in the process."""

TOKEN_BYTES, LINE_BYTES = 64, 4096
"""What a sampled token takes of a line at most, and what else is in it."""

_VARIABLES = {
    "HF_HUB_OFFLINE": "1",  # it is given a folder, whatever that may name
    "VLLM_DISABLE_COMPILE_CACHE": "1",  # what vLLM compiles is not left in the user's cache
}
"""Environment variables of every such process."""

WITHOUT = "Sample without vLLM: --sampler local."
"""What to do about a model that vLLM does not sample."""

Asked = tuple[Sequence[int], int]
"""(ids of a prompt, seed of its responses)."""


class VLLMBeside:
    """One model in vLLM, in a process that is there until it is closed.

    Parameters
    ----------
    model
        Folder with plain safetensors and a config.
    name
        How messages call the model.
    dtype
        ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    drawable
        Only ids below it are drawn.
    stop_ids
        Ids that end a response.
    gpu_share
        Of the GPU's memory, in (0, 1]; no matter on a CPU.
    raw
        Whether log-probabilities are the model's own, at temperature 1 over all ids, and not those that are drawn from.
    variables
        Environment variables of the process that differ from those of this one.

    Raises
    ------
    InputError
        vLLM cannot be used at all.
    CheckpointError
        It does not load the model.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str,
        dtype: str,
        drawable: int,
        stop_ids: Sequence[int],
        gpu_share: float,
        raw: bool,
        variables: Mapping[str, str],
    ) -> None:
        self.name, self.stop_ids = name, frozenset(stop_ids)
        self._about = About("vllm", None, name, None, None, None, False, None, False)
        self._child = Child(MODULE, {**_VARIABLES, **variables})
        with ExitStack() as undo:
            undo.callback(self.close, at_once=True)
            about: dict[str, Any] = {"model": model, "dtype": dtype, "drawable": drawable}
            self._child.send({**about, "gpu_share": gpu_share, "raw": raw})
            self._begins()
            self.context, self.vocabulary = self._loads()
            undo.pop_all()
        self._drawable = min(drawable, self.vocabulary)

    def sampled(
        self, prompts: Sequence[Asked], *, n: int, max_new_tokens: int, temperature: float, top_p: float
    ) -> Iterator[tuple[int, list[Sampled]]]:
        """Sample n responses to each prompt.

        Parameters
        ----------
        prompts
            vLLM gives each response a stream of its own from the seed of its prompt.
        n, max_new_tokens, temperature, top_p
            As of :class:`~opd_diag.records.sampling.Sampling`. At temperature 0 all n are one.

        Yields
        ------
        tuple
            Place of a prompt and its responses, as they are finished. Log-probabilities are of the distribution that
            was drawn from, at this temperature and after top-p, unless they are raw.

        Raises
        ------
        ModelError
            The process ends, refuses what it is asked, or answers what it must not.
        """
        different = n if temperature > 0 else 1
        params: dict[str, Any] = {"n": different, "max_tokens": max_new_tokens, "temperature": temperature}
        params |= {"top_p": top_p, "stop_token_ids": sorted(self.stop_ids)}
        self._child.send({"prompts": [(whole(ids), seed) for ids, seed in prompts], "params": params})
        waiting = {*range(len(prompts))}
        while waiting:
            said = self._sampling(LINE_BYTES + different * max_new_tokens * TOKEN_BYTES)
            place, responses = said.get("prompt"), said.get("responses")
            if type(place) is not int or place not in waiting:
                raise ModelError(f"{self._about.name} answers a prompt that it was not asked. {self._about.mend}")
            if not isinstance(responses, list) or len(responses) != different:
                found = len(responses) if isinstance(responses, list) else "none"
                raise ModelError(
                    f"{self._about.name}: {different} responses were expected, found {found}. {self._about.mend}"
                )
            waiting.remove(place)
            read = [self._believed(one, max_new_tokens) for one in responses]
            yield place, read if temperature > 0 else read * n

    def close(self, *, at_once: bool = False) -> None:
        """End the process, which has some seconds for it unless it is to end at once."""
        self._child.close(at_once=at_once)

    def _begins(self) -> None:
        def unusable(why: str) -> OpdDiagError:
            return InputError(f"vLLM cannot be used here: {why}. {_INSTALL}")

        self._said(LINE_BYTES, lambda how: unusable(f"its process {how}"), unusable)

    def _loads(self) -> tuple[int, int]:
        def not_loaded(why: str) -> OpdDiagError:
            return CheckpointError(f"{self.name}: vLLM does not load it: {why}. {WITHOUT}")

        said = self._said(LINE_BYTES, lambda how: not_loaded(f"its process {how}"), not_loaded)
        context, vocabulary = said.get("context"), said.get("vocabulary")
        if type(context) is not int or type(vocabulary) is not int:
            raise CheckpointError(f"{self._about.name} does not say how many tokens it takes. {self._about.mend}")
        return context, vocabulary

    def _sampling(self, most: int) -> dict[str, Any]:
        return self._said(
            most,
            lambda how: ModelError(f"{self.name}: the process in which vLLM samples it {how}. {WITHOUT}"),
            lambda why: ModelError(f"{self._about.name} refuses what it was asked: {why}. {WITHOUT}"),
        )

    def _said(
        self, most: int, ended: Callable[[str], OpdDiagError], refused: Callable[[str], OpdDiagError]
    ) -> dict[str, Any]:
        """Read what the process says, or raise what becomes of how it ended, or of why it refused."""
        try:
            said = self._child.answer(most)
        except NoAnswer as error:
            raise ended(str(error)) from error
        if "refused" in said:
            raise refused(words(said["refused"]))
        return said

    def _believed(self, response: Any, most: int) -> Sampled:
        """Check one response."""
        ids, logprobs, finish = response if isinstance(response, list) and len(response) == 3 else (None, None, None)
        logprobs = logprobs if isinstance(logprobs, list) else []
        if any(isinstance(one, float) and math.isnan(one) for one in logprobs):
            raise ModelError(
                f"{self._about.name} gives log-probabilities that are no numbers. Its weights are damaged."
            )
        try:
            read = sampled_of(self._about, ids, logprobs, finish, most)
        except ServerError as error:
            raise ModelError(str(error)) from error
        if max(read.ids) >= self._drawable:
            raise ModelError(
                f"{self._about.name}: ids below {self._drawable} were expected, found {max(read.ids)}. "
                f"{self._about.mend}"
            )
        stops = [place for place, token in enumerate(read.ids, start=1) if token in self.stop_ids]
        if stops != ([len(read.ids)] if finish == "stop" else []) or (finish == "length" and len(read.ids) < most):
            raise ModelError(
                f"{self._about.name}: responses that end at their first stop token or after {most} tokens were "
                f"expected, found one of {len(read.ids)} that ends by {finish}. {self._about.mend}"
            )
        return read


_INSTALL = "Mend its installation, or leave --sampler out."
