"""Trainers: recording a run as it goes, so that its report needs no other argument.

==================  ===============================================================================
`trl.py`            ``record``: one call before ``trainer.train()`` of TRL
`recorder.py`       ``Recorder``: what writes responses, prompts and manifest; for any trainer
`known_trainer.py`  what is read off a trainer of TRL: its sampling, loss, teacher and prompts
`probe.py`          ``Probe``: measuring as training goes, logged wherever the trainer logs
==================  ===============================================================================
"""

from opd_diag.integrations.probe import Probe
from opd_diag.integrations.recorder import Recorder
from opd_diag.integrations.trl import record

__all__ = ["Probe", "Recorder", "record"]
