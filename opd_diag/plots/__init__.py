"""One function per picture: a table of :mod:`opd_diag.tables` in, matplotlib Axes out.

====================  =========================================================================
`concentration.py`    probability mass on the shared tokens, and tokens shared, against k
`steps.py`            a metric against the step, with its interval; a grid of them
`logged.py`           the trainer's own curve behind it
`split.py`            how much of a change is the policy's, and how much comes from going elsewhere
`depth.py`            a metric against the position in the response
`horizon.py`          a metric and its control by depth; entropy by depth and step; continuations
`entropies.py`        student against teacher entropy, state by state
`outcomes.py`         pass@k against k; prompts by whether they are solved before and after
`comparison.py`       a metric of several runs over training
`teachers.py`         teachers by the two conditions of the paper; how far models are from each other
`cold_start.py`       mass on shared tokens before and after; the distance at the teacher's states by part
`gradient.py`         which tokens the reverse-KL gradient pushes, as stacked shares
`prompts.py`          prompts chosen and left out; how sets of prompts lie apart
`quantities.py`       title, unit and bounds of whatever a table may hold
`quantity.py`         what is to be known of one
`of_responses.py`     those that are no metric of one state
`intervals.py`        lines with their intervals and the band of the whole curve
`style.py`            colours, fonts and the axis that checkpoints stand on
====================  =========================================================================

Without `ax` a figure of its own is made, off screen: ``plot(table).figure.savefig("plot.pdf")``.
"""

from opd_diag.plots.cold_start import distance_by_part, shared_mass_by_states
from opd_diag.plots.comparison import runs_by_step
from opd_diag.plots.concentration import concentration_curves, overlap_ratio_curves
from opd_diag.plots.depth import metric_by_depth
from opd_diag.plots.entropies import student_against_teacher_entropy
from opd_diag.plots.gradient import gradient_by_step
from opd_diag.plots.horizon import FEWEST_PROMPTS, continuation_curves, entropy_heat_map, metric_over_control
from opd_diag.plots.outcomes import item_outcomes, pass_at_k_curves
from opd_diag.plots.prompts import prompt_selection, prompts_by_quantity
from opd_diag.plots.quantities import Quantity, quantity
from opd_diag.plots.split import change_split, metric_with_split
from opd_diag.plots.steps import alignment_grid, has_bands, metric_by_step
from opd_diag.plots.teachers import model_distances, teaching_conditions

__all__ = [
    "FEWEST_PROMPTS",
    "Quantity",
    "alignment_grid",
    "change_split",
    "concentration_curves",
    "continuation_curves",
    "distance_by_part",
    "entropy_heat_map",
    "gradient_by_step",
    "has_bands",
    "item_outcomes",
    "metric_by_depth",
    "metric_by_step",
    "metric_over_control",
    "metric_with_split",
    "model_distances",
    "overlap_ratio_curves",
    "pass_at_k_curves",
    "prompt_selection",
    "prompts_by_quantity",
    "quantity",
    "runs_by_step",
    "shared_mass_by_states",
    "student_against_teacher_entropy",
    "teaching_conditions",
]
