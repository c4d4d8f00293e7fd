"""Error bars for numbers whose parts go together: states of one rollout, rollouts of one prompt.

The sampling unit of a report is the prompt. Thousands of states from a few dozen prompts are not thousands of
independent draws, and an interval that treats them so is several times too narrow; so every function here takes the
cluster of each value beside it. numpy and scipy alone: nothing here knows what a model is.

========================================  =============================================================
:func:`clustered_mean`                    token mean, or ratio of sums, with a CR1/t interval, clustered by prompt
:func:`clustered_mean_difference`         later minus earlier, paired by prompt
:func:`clustered_means`,                  the same for many columns at once
:func:`clustered_mean_differences`
:func:`clustered_contrasts`               any weighted sum of means, paired by prompt
:func:`clustered_jackknife`,              an interval for statistics that are no means
:func:`clustered_jackknife_difference`
:func:`kendall_tau`                       whether a curve over checkpoints rises or falls, without a p-value
:mod:`~opd_diag.stats.rounding`           numbers rounded by their error, as people read them
========================================  =============================================================

Undefined is NaN, left out and counted (:attr:`Estimate.n_undefined`), never 0.

References
----------
Miller (2024), Adding error bars to evals, arXiv 2411.00640; Cameron and Miller (2015), A practitioner's guide to
cluster-robust inference, Journal of Human Resources 50(2).

Examples
--------
>>> from opd_diag import stats
>>> estimate = stats.clustered_mean([0.5, 0.7, 0.9, float("nan")], clusters=[0, 0, 1, 1])
>>> round(estimate.value, 3), estimate.n, estimate.n_clusters, estimate.n_undefined
(0.7, 3, 2, 1)
"""

from opd_diag.stats.clustered import Estimate, clustered_mean, clustered_means
from opd_diag.stats.contrasts import clustered_contrasts, clustered_mean_difference, clustered_mean_differences
from opd_diag.stats.jackknife import clustered_jackknife, clustered_jackknife_difference
from opd_diag.stats.trends import kendall_tau

__all__ = [
    "Estimate",
    "clustered_contrasts",
    "clustered_jackknife",
    "clustered_jackknife_difference",
    "clustered_mean",
    "clustered_mean_difference",
    "clustered_mean_differences",
    "clustered_means",
    "kendall_tau",
]
