"""A server without a wire: it answers as servers do, from a model that is here, so that the truth is known."""

from __future__ import annotations

import numpy as np
import torch

from opd_diag.servers import ALL, About, Answer, Sampled


class ModelServer:
    """Answers from a wrapped model, by plain transformers."""

    def __init__(self, model, *, top_limit=None, exact_ids=False, sees_all=True, name="served/teacher", tokenizer=None):
        self.model, self.tokenizer = model, tokenizer
        self.about = About(
            engine="vllm", version="0.32.0", model=name, root=None, context=512, top_limit=top_limit,
            exact_ids=exact_ids, why_not_exact=None if exact_ids else "It is too old.", sees_all=sees_all,
        )  # fmt: skip
        self.asked = []

    @torch.inference_mode()
    def logprobs(self, ids):
        """(n, V): row i is what follows the first i + 1 ids."""
        logits = self.model.hf(input_ids=torch.tensor([list(ids)])).logits[0]
        return logits.double().log_softmax(-1).numpy()

    def answer(self, question):
        self.asked.append(question)
        rows = self.logprobs(question.ids)[question.start - 1 :][: question.rows]
        top = rows.shape[1] if question.top == ALL else question.top
        order = np.lexsort((np.broadcast_to(np.arange(rows.shape[1]), rows.shape), -rows), axis=-1)[:, :top]
        own = np.array(question.ids[question.start :], dtype=np.int64)
        at = None
        if question.at is not None:
            at = np.take_along_axis(rows, np.maximum(question.at, 0), axis=-1)
            at[question.at < 0] = np.nan
        return Answer(
            sampled_logprobs=rows[np.arange(len(own)), own],
            topk_ids=order.astype(np.int64),
            topk_logprobs=np.take_along_axis(rows, order, axis=-1),
            at_logprobs=at,
            received_bytes=100 * len(rows),
        )

    def text(self, ids):
        return None if self.tokenizer is None else self.tokenizer.text(list(ids))

    @torch.inference_mode()
    def sampled(self, prompt_ids, *, n, max_new_tokens, temperature, top_p, seed):
        random = np.random.default_rng(seed)
        found = []
        for _ in range(n):
            ids, logprobs = list(prompt_ids), []
            while len(logprobs) < max_new_tokens and not (logprobs and ids[-1] in self.model.stop_ids):
                row = self.logprobs(ids)[-1]
                ids.append(int(random.choice(len(row), p=np.exp(row) / np.exp(row).sum())))
                logprobs.append(row[ids[-1]])
            stopped = ids[-1] in self.model.stop_ids
            kept = np.array(logprobs) if temperature == 1 else None
            found.append(Sampled(tuple(ids[len(prompt_ids) :]), kept, "stop" if stopped else "length"))
        return found
