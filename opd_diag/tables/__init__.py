"""From scores to rows: per state, per rollout, per step; and the catalogue of metrics that names the columns.

Rows always come in the order of the checkpoints. `step` is a nullable integer (``Int64``; missing when unknown, then
`label` names and the row order orders). `states` is one of ``on-policy``, ``start``. `teacher` is the teacher's name.

**States** (:func:`measure`), one row a state, terminal ones left out::

    step label teacher states k prompt_index prompt_id group rollout_index position sampled_id <one column a metric>

**Rollouts** (:func:`rollout_table`), one row a rollout::

    step label teacher states k prompt_index prompt_id group rollout_index n_states stop_reason is_correct reward
    <one column a metric: its mean over the rollout's defined states>

**Summary** (:func:`summarize`), one row a (step, states, metric), the columns of ``report.json``::

    step label teacher states metric k aggregation value ci_low ci_high bound_low bound_high
    n_states n_rollouts n_prompts n_undefined

`aggregation` is ``token mean`` for the metrics of the catalogue. Three more rows come per step, for ``on-policy``
states alone, with ``rollout mean``: ``accuracy`` (where answers are known), ``truncation_rate``, ``response_length``.
`k` is missing for metrics that do not depend on it. `bound_low`/`bound_high` are NaN while all values are exact.

**Concentration** (:func:`concentration_table`), one row a (step, states, k of the grid)::

    step label teacher states k
    overlap_ratio overlap_ratio_ci_low overlap_ratio_ci_high              (and the same three for each of
    student_overlap_mass teacher_overlap_mass student_topk_mass teacher_topk_mass)
    n_states n_rollouts n_prompts

**Depth** (:func:`depth_table`), one row a (step, states, metric, bin of positions)::

    step label teacher states metric depth_low depth_high value ci_low ci_high n_states n_rollouts n_prompts

`depth_low` ≤ position < `depth_high`.

**Differences** (:func:`difference_table`), one row a (pair of steps, states, metric), value = later − earlier, paired
by prompt::

    from_step from_label to_step to_label teacher states metric k value ci_low ci_high n_prompts
"""

from opd_diag.tables.assembled import Tables, assemble, from_rows
from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, METRIC_NAMES, Metric
from opd_diag.tables.concentration import concentration_table
from opd_diag.tables.states import measure, rollout_table
from opd_diag.tables.stored import load_tables, save_states
from opd_diag.tables.summary import depth_table, difference_table, summarize

__all__ = [
    "BY_NAME",
    "CATALOGUE",
    "METRIC_NAMES",
    "Metric",
    "Tables",
    "assemble",
    "concentration_table",
    "depth_table",
    "difference_table",
    "from_rows",
    "load_tables",
    "measure",
    "rollout_table",
    "save_states",
    "summarize",
]
