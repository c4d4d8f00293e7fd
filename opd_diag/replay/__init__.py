"""From a run folder to a filled store: what is to be done, doing it, and where the results lie.

===========  =====================================================================================
`plan.py`    ``make_plan``: everything that can be known, and refused, before a model is loaded
`store.py`   ``Store``: OUT_DIR, its lock, and which parts of it are finished
`replay.py`  ``replay``: load, sample, score; checkpoint by checkpoint, the teacher loaded once
===========  =====================================================================================
"""

from opd_diag.replay.plan import ReplayPlan, make_plan
from opd_diag.replay.replay import Replay, ScoredSet, replay
from opd_diag.replay.store import Store, open_store

__all__ = ["Replay", "ReplayPlan", "ScoredSet", "Store", "make_plan", "open_store", "replay"]
