"""Whether a server still has the teacher that it had when a report was begun: weights behind it have no fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from opd_diag.errors import ServerError
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.records.arrays import Arrays, load_arrays, save_arrays
from opd_diag.records.files import content_key
from opd_diag.replay.store import Store
from opd_diag.servers import Question, answered
from opd_diag.tokenization import EncodedPrompt

ASKED = 4
"""Prompts whose own tokens are asked about."""

MOST_TOKENS = 64
"""Of each of them."""

SAME = 0.05
"""Nats by which log-probabilities of the same tokens may differ on average: bfloat16 and other batches make 0.01, other
weights far more."""


NAME = ".checks/served-{}.safetensors"
"""Where OUT_DIR keeps the answers of the first time, by a hash of what was asked: a study asks of several prompts."""

FORMER = ".checks/served.safetensors"
"""Where it kept them before studies asked; there they stay."""


def refuse_other_teacher(teacher: ServedTeacher, prompts: Sequence[EncodedPrompt], store: Store) -> None:
    """Hold a few answers against those of the first time; of a new report, keep them.

    Raises
    ------
    ServerError
        They are another model's.
    """
    asked = [prompt.teacher_ids[:MOST_TOKENS] for prompt in prompts[:ASKED] if len(prompt.teacher_ids) > 1]
    if not asked:
        return
    times = 0

    def made() -> Arrays:
        nonlocal times
        times += 1
        questions = [Question(ids, 1, 1) for ids in asked]
        answers = answered(teacher.server, questions, at_once=teacher.at_once)
        return {"sampled_logprobs": np.concatenate([answer.sampled_logprobs for answer in answers])}

    key = content_key(["same server", teacher.key, asked])
    former = store.parts.get(FORMER)
    name = FORMER if former is not None and former.key == key else NAME.format(content_key(asked)[:8])
    first = store.part(name, key, make=made, save=save_arrays, load=load_arrays, share=False)["sampled_logprobs"]
    if times:
        return
    now = made()["sampled_logprobs"]
    with np.errstate(invalid="ignore"):  # impossible both times
        apart = float(np.where(now == first, 0.0, np.abs(now - first)).mean())
    if not apart <= SAME:
        raise ServerError(
            f"{teacher.server.about.name} gives the same {len(first)} tokens log-probabilities that differ by "
            f"{apart:.2g} nats on average from those it gave when {store.out_dir} was begun: it has other weights "
            f"under the name {teacher.server.about.model}. Choose another folder with --out, or "
            f"{'start the server' if teacher.server.about.url else 'load the model'} as it was."
        )
