"""From scores to rows: per state, per rollout, per step; and the catalogue of metrics that names the columns.

Rows always come in the order of the checkpoints. `step` is a nullable integer (``Int64``; missing when unknown, then
`label` names and the row order orders). `teacher` is the teacher's name. `states` is one of ``on-policy`` (the
checkpoint's own), ``start`` (the first checkpoint's), ``teacher`` (the teacher's), ``back`` (the checkpoint's own,
scored by the first checkpoint; its rows are listed under the checkpoint whose states they are).

**States** (:func:`measure`), one row a state, terminal ones left out::

    step label teacher states k prompt_index prompt_id group rollout_index position sampled_id gradient_squared_norm
    <one column a metric>

`gradient_squared_norm` is what ratios of sums are weighted by: a mean over states of such a metric r is Σ w r / Σ w,
in every table. A mean without the weights is another number.

**Rollouts** (:func:`rollout_table`), one row a rollout::

    step label teacher states k prompt_index prompt_id group rollout_index n_states stop_reason is_correct reward
    <one column a metric: its mean over the rollout's defined states>

**Summary** (:func:`summarize`), one row a (step, states, metric), the columns of ``report.json``::

    step label teacher states metric k aggregation value ci_low ci_high bound_low bound_high
    n_states n_rollouts n_prompts n_undefined floor within_floor

`aggregation` is ``token mean`` or ``ratio of sums`` for the metrics of the catalogue. More rows tell of the responses
themselves, for ``on-policy`` and for ``teacher`` (then equal for every checkpoint):

- ``rollout mean``: ``accuracy`` (where answers are known), ``truncation_rate``, ``response_length``;
- ``pooled`` (:func:`~opd_diag.tables.diversity.diversity_rows`): ``distinct_bigram_ratio``,
  ``distinct_trigram_ratio``, ``unigram_entropy``; `n_states` counts n-grams, `n_undefined` the states that end none;
- ``state mean``, ``on-policy`` alone: ``teacher_state_coverage``, where it was looked at; `n_states` counts the
  teacher's states.

`k` is missing for metrics that do not depend on it. `bound_low`/`bound_high` are NaN while all values are exact.
`floor` is the precision floor of the metric (:mod:`opd_diag.tables.floors`), NaN where none was measured;
`within_floor` whether the value is within twice of it from what it is between equal models, missing where that cannot
be said.

**Concentration** (:func:`concentration_table`), one row a (step, states, k of the grid)::

    step label teacher states k
    overlap_ratio overlap_ratio_ci_low overlap_ratio_ci_high              (and the same three for each of
    student_overlap_mass teacher_overlap_mass student_topk_mass teacher_topk_mass)
    n_states n_rollouts n_prompts

**Depth** (:func:`depth_table`), one row a (step, states, metric, bin of positions)::

    step label teacher states metric depth_low depth_high value ci_low ci_high n_states n_rollouts n_prompts

`depth_low` ≤ position < `depth_high`.

**Differences** (:func:`difference_table`), one row a (pair of steps, states, metric), value = later − earlier, paired
by prompt; of the responses, for ``on-policy`` alone::

    from_step from_label to_step to_label teacher states metric k value ci_low ci_high n_prompts

**Split** (:func:`split_table`), one row a (checkpoint after the first, metric, part, orders) of the change on own
states, all parts of one (checkpoint, metric, orders) on the same prompts::

    from_step from_label step label teacher metric k part value ci_low ci_high n_prompts orders

`part` is ``on_policy_change`` = ``policy_change`` + ``state_change``. Where ``back`` was scored there are rows with
`orders` 2 besides, averages of both orders, and ``order_difference``.

**Coverage** (:func:`opd_diag.metrics.covered`), one row a state of the teacher's that was looked at; `is_covered` is
missing where it is undefined::

    step label teacher prompt_index prompt_id rollout_index position is_covered
"""

from opd_diag.tables.assembled import Tables, assemble, from_rows
from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, METRIC_NAMES, Metric
from opd_diag.tables.concentration import concentration_table
from opd_diag.tables.coverage import save_coverage
from opd_diag.tables.depth import depth_table
from opd_diag.tables.split import split_table
from opd_diag.tables.states import measure, rollout_table
from opd_diag.tables.stored import load_tables, save_states
from opd_diag.tables.summary import difference_table, summarize

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
    "save_coverage",
    "save_states",
    "split_table",
    "summarize",
]
