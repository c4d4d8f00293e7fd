"""The process in which vLLM samples one model: ``python -m opd_diag.servers.vllm_child``, lines of JSON in and out.

An engine does not give back its memory in the process that it was in, so each model has a process of its own. The first
line names the model, every further one asks for responses (:mod:`opd_diag.servers.vllm_beside` writes and reads them);
where input ends the process does. No tokenizer is read, and no generation settings: who asks names what ends a
response. What libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from opd_diag.errors import MissingExtra
from opd_diag.servers.vllm_engine import LIBRARY_ERRORS, Library, imported, words_of

FORBIDDEN = -100.0
"""Added to the logits of ids that must not be drawn: as much as vLLM takes, and less than any of them can make up."""


def main() -> None:
    """Answer the lines of standard input."""
    with os.fdopen(os.dup(1), "w", encoding="ascii") as out:
        os.dup2(2, 1)
        serve(sys.stdin, out)


def serve(lines: Iterable[str], out: TextIO) -> None:
    """Load the model that the first line names, then answer each further one; end where something is refused.

    Answers are ``{"vllm": version}``, ``{"context": tokens, "vocabulary": ids}`` once the model is loaded, then of each
    prompt ``{"prompt": place in its line, "responses": [[ids, log-probabilities, why it ended], …]}`` as soon as it
    is finished; or ``{"refused": why}``, which is the last.
    """

    def tell(**answer: Any) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    asked = iter(lines)
    about = json.loads(next(asked))
    try:
        library = imported()
    except (MissingExtra, *LIBRARY_ERRORS) as error:
        return tell(refused=words_of(error))
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and not library.on_cpu:
        return tell(refused="it is a build for GPUs, and on --device cpu it sees none")
    tell(vllm=str(library.vllm.__version__))
    try:
        llm = library.loaded(
            about["model"],
            about["dtype"],
            about["gpu_share"],
            logprobs_mode="raw_logprobs" if about["raw"] else "processed_logprobs",
            skip_tokenizer_init=True,
            generation_config="vllm",  # its own defaults, and not what the folder says
        )
        vocabulary = int(llm.model_config.get_vocab_size())
        tell(context=int(llm.model_config.max_model_len), vocabulary=vocabulary)
        forbidden = {i: FORBIDDEN for i in range(about["drawable"], vocabulary)}
        for line in asked:
            for answer in _drawn(library, llm, json.loads(line), forbidden):
                tell(**answer)
    except library.errors as error:
        tell(refused=words_of(error))


def _drawn(library: Library, llm: Any, request: dict[str, Any], forbidden: dict[int, float]) -> Iterator[Any]:
    """Give the responses of each prompt, as they are finished."""
    kinds = importlib.import_module("vllm.sampling_params").RequestOutputKind
    for place, (ids, seed) in enumerate(request["prompts"]):
        params = library.vllm.SamplingParams(
            **request["params"],
            seed=seed,
            logit_bias=forbidden or None,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=kinds.FINAL_ONLY,
        )
        llm.llm_engine.add_request(str(place), library.vllm.TokensPrompt(prompt_token_ids=ids), params)
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            responses = [
                [list(one.token_ids), list(one.logprobs.logprobs), one.finish_reason] for one in output.outputs
            ]
            yield {"prompt": int(output.request_id), "responses": responses}


if __name__ == "__main__":
    main()
