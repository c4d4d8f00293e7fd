"""The only room that runs a model.

===============  ============================================================================================
`model.py`       ``Model``: body, head, what is known of it
`loading.py`     folder or hub id → ``Model``; adapters, refusals, what a model's folder lacks
`configs.py`     what a folder or hub id says of a model besides its weights
`weights.py`     which way weights come into memory, by what their folder holds
`merging.py`     weights in parts, or pickled → a transformers model, merged in memory
`ranks.py`       one file a rank (verl, SkyRL), made whole
`distributed.py` torch distributed checkpoints, made whole by torch
`pickles.py`     tensors of pickles; nothing that they name is run
`names.py`       which stored tensors are which weights, whatever a trainer wraps around a model
`completeness.py` whether a model was loaded whole
`device_maps.py` what ``--device`` and ``--device-map`` name
`placing.py`     where a model will lie, settled and refused before any weight is read
`sharding.py`    which models can be loaded in shards, and what each rank holds
`leading.py`     rank 0 of a model in shards, which starts the others and says what all do
`following.py`   the program of the other ranks
`hooks.py`       models whose modules accelerate moves about: where a module computes
`room.py`        how much memory a device has, and how much of it is free
`swapping.py`    one model in memory that becomes one checkpoint after another
`stored.py`      tensors of safetensors files, read into tensors that are there already
`adapters.py`    PEFT adapters, merged with every weight accounted for
`libraries.py`   what transformers and peft print and raise, made one sentence
`scoring.py`     rollouts → ``Scores``: both models over the same states, exact over the whole vocabulary
`served.py`      the same with a teacher behind a server: ids are sent, log-probabilities come back
`asking.py`      questions to it in flight, and the fields of each shard from what it says
`served_teacher.py` ``ServedTeacher``: what scoring and sampling know of it
`partial.py`     what a server said, made into fields: all, or those it decides and bounds of the others
`served_sampling.py` responses of a teacher behind a server
`vllm_sampling.py` responses of a model that vLLM samples, and that model saved as vLLM reads it
`drawn_elsewhere.py` what both share: responses that are drawn in another place, made records
`outline.py`     what of a state set is known before it is scored; its scores put together from shards
`cut.py`         how a state set is cut into batches and shards; hidden states of shards, kept and found again
`packing.py`     many sequences in one row without padding, a prompt once for all its responses
`attention.py`   attention span by span, so that the sequences of a row do not see each other
`hidden.py`      last hidden states at chosen places, in memory or mapped from a file
`head.py`        the output head, applied where wanted; checked against ``model(...).logits``
`onepass.py`     one pass over the vocabulary for both heads: the maths of all sums
`fitting.py`     a second pass at few states: tempered students, gradients of states against each other
`block.py`       one block of states: hidden states of both in, the fields of the scores out
`linear.py`      float32 products at the speed of the processor
`memory.py`      memory given back between bodies and heads
`shards.py`      long work in shards that can be kept and found again
`precision.py`   the same weights in another precision; which precisions a machine computes in
`sampling.py`    prompts → rollouts, with random numbers keyed by (seed, step, prompt, rollout)
`growing.py`     token by token in a fixed number of places, which those that stop leave to others
`places.py`      the key–value cache whose places are taken again and again
`batches.py`     which prompts are read together: a pure function of their lengths
`drawing.py`     one token from logits and a uniform number
`size.py`        how large a model is, told from its config
`pace.py`        how fast this machine is with models of that size, timed for a moment
===============  ============================================================================================
"""

from opd_diag.inference.cut import Cut, hidden_as_scored
from opd_diag.inference.device_maps import device_type, resolve_device
from opd_diag.inference.fitting import SecondPass, second_pass
from opd_diag.inference.head import HeadCheck, check_head
from opd_diag.inference.hidden import HiddenStates, Place, hidden_at, teacher_hidden
from opd_diag.inference.loading import load_model, stored_stop_ids
from opd_diag.inference.model import Model, wrap_model
from opd_diag.inference.outline import Outline
from opd_diag.inference.precision import OtherPrecision, Twin, reference_dtype, usable_dtype
from opd_diag.inference.sampling import Drawing, in_order, sample_rollouts, sampling_shards
from opd_diag.inference.scoring import Scoring, score
from opd_diag.inference.shards import Keep, Shard

__all__ = [
    "Cut",
    "Drawing",
    "HeadCheck",
    "HiddenStates",
    "Keep",
    "Model",
    "OtherPrecision",
    "Outline",
    "Place",
    "Scoring",
    "SecondPass",
    "Shard",
    "Twin",
    "check_head",
    "device_type",
    "hidden_as_scored",
    "hidden_at",
    "in_order",
    "load_model",
    "reference_dtype",
    "resolve_device",
    "sample_rollouts",
    "sampling_shards",
    "score",
    "second_pass",
    "stored_stop_ids",
    "teacher_hidden",
    "usable_dtype",
    "wrap_model",
]
