"""From a run folder to a filled store: what is to be done, doing it, and where the results lie.

==================  =====================================================================================
`plan.py`           ``ReplayPlan``: which weights, on which prompts, with which settings
`planning.py`       ``plan_run``, ``make_plan``, ``plan_models``: all that can be known, and refused, before a model is
                    loaded
`recorded.py`       what ``--rollouts`` names, and which rollouts of ours are refused
`near.py`           what a trainer recorded, read and given to checkpoints
`pairing.py`        which checkpoint scores what weights in training wrote
`retokenized.py`    recorded responses made into ids, or why that cannot be done
`known_prompts.py`  prompts of the file, found by what trainers record of them
`prompts.py`        which prompts a report uses
`templates.py`      the same plan under another chat template
`store.py`          ``Store``: OUT_DIR, its lock, its finished parts, and the shards of those under way
`marker.py`         what OUT_DIR says of itself: whose run, the key and the checksum of every part
`shared.py`         a folder in which several OUT_DIRs find each other's parts (``--store``)
`upkeep.py`         what such a folder holds, and taking away what nobody uses any more
`work.py`           how much models will do for a plan, in tokens and states
`account.py`        how much they did
`cost.py`           the two as tokens, operations, minutes and bytes, side by side
`parts.py`          ``Parts``: what each part is made from, and how
`hidden.py`         last hidden states kept for another checkpoint, or another pair of models
`between.py`        teachers held against each other at one student's states
`sampled.py`        who samples responses: this process, or vLLM in one of its own
`lazy.py`           a model that is loaded when it is first needed
`served.py`         a teacher behind a server, or in vLLM here: what it is, and what ids mean to it
`served_parts.py`   ``ServedParts``: the parts of a replay with such a teacher
`same_server.py`    whether that is still the teacher it was
`wire.py`           what it costs: requests, bytes over the wire, minutes
`logprobs.py`       log-probabilities as sampled against the replayed ones
`coverage.py`       which of the teacher's states lie near a checkpoint's own
`subsample.py`      which states get a second pass, for the temperature fit and gradient coherence
`replay.py`         ``replay``: sample and score, checkpoint by checkpoint, the teacher loaded once
`spread/`           the same parts made by workers, on one machine or many (``--engine ray``)
`lessons.py`        responses of the teacher beyond those that are measured, to be taught
`measured.py`       ``measured``: a plan carried out, and what it leaves in tables
`prefixes.py`       beginnings of responses, and filler as long
`continuing.py`     the same continued by student and teacher
`finished.py`       what a finished report left, read again without a model
==================  =====================================================================================
"""

from opd_diag.replay.measured import measured
from opd_diag.replay.plan import ReplayPlan
from opd_diag.replay.planning import make_plan, plan_models
from opd_diag.replay.replay import Replay, ScoredSet, replay
from opd_diag.replay.store import Store, open_store

__all__ = ["Replay", "ReplayPlan", "ScoredSet", "Store", "make_plan", "measured", "open_store", "plan_models", "replay"]
