"""The only room that runs a model.

===============  ============================================================================================
`loading.py`     folder or hub id → ``Model``; adapters, refusals, what a model's folder lacks
`adapters.py`    PEFT adapters, merged with every weight accounted for
`head.py`        the output head, applied where wanted; checked against ``model(...).logits``
`batches.py`     which rollouts are forwarded together: a pure function of their lengths
`shards.py`      long work in shards that can be kept and found again
`hidden.py`      last hidden states at chosen places
`scoring.py`     rollouts → ``Scores``: both models over the same states, exact over the whole vocabulary
`block.py`       one block of states: two matrices of logits in, the fields of the scores out
`sampling.py`    prompts → rollouts, with random numbers keyed by (seed, step, prompt, rollout)
`drawing.py`     one token from logits and a uniform number
===============  ============================================================================================
"""

from opd_diag.inference.head import HeadCheck, check_head
from opd_diag.inference.hidden import Place, teacher_hidden
from opd_diag.inference.loading import Model, load_model, resolve_device, wrap_model
from opd_diag.inference.sampling import sample_rollouts
from opd_diag.inference.scoring import score
from opd_diag.inference.shards import Keep, Shard

__all__ = [
    "HeadCheck",
    "Keep",
    "Model",
    "Place",
    "Shard",
    "check_head",
    "load_model",
    "resolve_device",
    "sample_rollouts",
    "score",
    "teacher_hidden",
    "wrap_model",
]
