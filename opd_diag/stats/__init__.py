"""Error bars for numbers whose parts go together: states of one rollout, rollouts of one prompt.

The sampling unit of a report is the prompt. Thousands of states from a few dozen prompts are not thousands of
independent draws, and an interval that treats them so is several times too narrow; so every function here takes the
cluster of each value beside it. numpy and scipy alone: nothing here knows what a model is.

========================================  =============================================================
:func:`clustered_mean`                    token mean, or ratio of sums, with a CR2/t interval, clustered by prompt
:func:`clustered_mean_difference`         later minus earlier, paired by prompt
:func:`clustered_means`,                  the same for many columns at once
:func:`clustered_mean_differences`
:func:`clustered_contrasts`               any weighted sum of means, paired by prompt
:func:`contrasts_in_ways`                 whether token, rollout and prompt averages lead to different conclusions
:func:`clustered_jackknife`,              an interval for statistics that are no means
:func:`clustered_jackknife_difference`
:class:`Resampling`                       one set of weights of prompts for all metrics, checkpoints and teachers
:func:`trend`                             whether a curve over checkpoints rises or falls: change and order
:func:`equivalence`, :func:`plateau`      whether nothing happens, with three answers
:func:`detectable_difference`             the smallest difference that as many prompts would show
:func:`change_point`                      where a short curve changes its level, or that it does not
:func:`simultaneous_band`                 a band for a whole curve
:func:`taus`, :func:`sen_slopes`,         order and slope of every resampled curve, and their interval
:func:`percentile_interval`
:func:`holm`                              families of p-values
:func:`pass_at_k`, :func:`mcnemar`,       counts of correct responses: what so many tries solve, and items that change
:func:`changed_items`                     sides
:func:`tas_at_k`                          what a teacher's signal would do for pass@k, of each item
:func:`net_share`,                        the share of those that changed one way less the other way
:func:`paired_share_difference`
:func:`wilson`, :func:`open_share`,       shares k/n; what 0 of n and n of n leave open
:func:`open_share_difference`
:func:`group_means`                       means of many small groups, how reliably they differ, drawn toward that of all
:func:`unpaired_difference`,              two samples without a cluster in common; a mean of estimates that may depend
:func:`cautious_mean`                     on each other
:mod:`~opd_diag.stats.rounding`           numbers rounded by their error, as people read them
========================================  =============================================================

Undefined is NaN, left out and counted (:attr:`Estimate.n_undefined`), never 0. Below `MIN_CLUSTERS` prompts there is no
interval.

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

from opd_diag.stats.averaging import Ways, contrasts_in_ways
from opd_diag.stats.changes import ChangePoint, change_point
from opd_diag.stats.clustered import clustered_mean, clustered_means
from opd_diag.stats.contrasts import clustered_contrasts, clustered_mean_difference, clustered_mean_differences
from opd_diag.stats.counts import changed_items, mcnemar, net_share, paired_share_difference, pass_at_k, tas_at_k
from opd_diag.stats.equivalences import Equivalence, detectable_difference, equivalence, plateau, plateau_weights
from opd_diag.stats.estimate import MIN_CLUSTERS, Estimate
from opd_diag.stats.families import holm, simultaneous_band
from opd_diag.stats.jackknife import clustered_jackknife, clustered_jackknife_difference
from opd_diag.stats.resampling import Resampling, percentile_interval, sen_slopes, taus
from opd_diag.stats.shares import open_share, open_share_difference, wilson
from opd_diag.stats.shrinkage import GroupMeans, group_means
from opd_diag.stats.trends import Trend, kendall_tau, order_p_value, trend
from opd_diag.stats.unpaired import cautious_mean, unpaired_difference

__all__ = [
    "MIN_CLUSTERS",
    "ChangePoint",
    "Equivalence",
    "Estimate",
    "GroupMeans",
    "Resampling",
    "Trend",
    "Ways",
    "cautious_mean",
    "change_point",
    "changed_items",
    "clustered_contrasts",
    "clustered_jackknife",
    "clustered_jackknife_difference",
    "clustered_mean",
    "clustered_mean_difference",
    "clustered_mean_differences",
    "clustered_means",
    "contrasts_in_ways",
    "detectable_difference",
    "equivalence",
    "group_means",
    "holm",
    "kendall_tau",
    "mcnemar",
    "net_share",
    "open_share",
    "open_share_difference",
    "order_p_value",
    "paired_share_difference",
    "pass_at_k",
    "percentile_interval",
    "plateau",
    "plateau_weights",
    "sen_slopes",
    "simultaneous_band",
    "tas_at_k",
    "taus",
    "trend",
    "unpaired_difference",
    "wilson",
]
