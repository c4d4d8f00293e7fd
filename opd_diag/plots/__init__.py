"""One function per picture: a table of :mod:`opd_diag.tables` in, matplotlib Axes out.

====================  =========================================================================
`concentration.py`    probability mass on the shared tokens, and tokens shared, against k
`steps.py`            a metric against the step, with its interval; a grid of them
`logged.py`           the trainer's own curve behind it
`split.py`            how much of a change is the policy's, and how much comes from going elsewhere
`depth.py`            a metric against the position in the response
`heat.py`             a metric by depth and step, as a map of cells
`tails.py`            share of states beyond each value of a metric
`bounds.py`           where a curve may lie at all, of a teacher that is known in part
`k_sweep.py`          bounds against the number of ids that a server returns
`horizon.py`          a metric and its control by depth; continuations
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
`style.py`            colours, legends and the axis that checkpoints stand on
`paper.py`            fonts, letters and inches, and others for a paper
====================  =========================================================================

Without `ax` a figure of its own is made, off screen: ``plot(table).figure.savefig("plot.pdf")``. PLOTS.md shows all.
"""

from opd_diag.plots.cold_start import distance_by_part, shared_mass_by_states
from opd_diag.plots.comparison import runs_by_step
from opd_diag.plots.concentration import concentration_by_states, concentration_curves, overlap_ratio_curves
from opd_diag.plots.depth import metric_by_depth
from opd_diag.plots.entropies import student_against_teacher_entropy
from opd_diag.plots.gradient import gradient_by_step
from opd_diag.plots.heat import heat_limit, metric_heat_map
from opd_diag.plots.horizon import continuation_curves, metric_over_control
from opd_diag.plots.k_sweep import bounds_by_top
from opd_diag.plots.outcomes import item_outcomes, pass_at_k_curves
from opd_diag.plots.paper import paper_style
from opd_diag.plots.prompts import prompt_selection, prompts_by_quantity
from opd_diag.plots.quantities import Quantity, quantity
from opd_diag.plots.split import change_split, metric_with_split
from opd_diag.plots.steps import alignment_grid, has_bands, metric_by_step
from opd_diag.plots.tails import tail_curves
from opd_diag.plots.teachers import model_distances, teaching_conditions

__all__ = [
    "Quantity",
    "alignment_grid",
    "bounds_by_top",
    "change_split",
    "concentration_by_states",
    "concentration_curves",
    "continuation_curves",
    "distance_by_part",
    "gradient_by_step",
    "has_bands",
    "heat_limit",
    "item_outcomes",
    "metric_by_depth",
    "metric_by_step",
    "metric_heat_map",
    "metric_over_control",
    "metric_with_split",
    "model_distances",
    "overlap_ratio_curves",
    "paper_style",
    "pass_at_k_curves",
    "prompt_selection",
    "prompts_by_quantity",
    "quantity",
    "runs_by_step",
    "shared_mass_by_states",
    "student_against_teacher_entropy",
    "tail_curves",
    "teaching_conditions",
]
