"""Faults planted upstream, in ids, weights, templates, sampling and training; never in scores.

A fault is planted in a copy of a run that `opd_diag.lab.collapse` grew, so that it is the only thing that is wrong:

- `case`: the copy, and what a trainer would have recorded beside it;
- `recorded`: ids, ends and log-probabilities that are not what the model wrote;
- `sampled`: responses drawn otherwise than their record says;
- `files`: tokenizer, chat template, prompts;
- `weights`: models exchanged, rows permuted, logits scaled;
- `trained`: models taught what they should not have learned;
- `catalogue`: all faults by name, and which self-test or verdict must give the alarm.

``python -m benchmarks.faults`` plants all of them many times and counts what is detected.
"""

from opd_diag.lab.faults.case import Case, copied_case, record_rollouts
from opd_diag.lab.faults.catalogue import FAULTS, Fault

__all__ = ["FAULTS", "Case", "Fault", "copied_case", "record_rollouts"]
