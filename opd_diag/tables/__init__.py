"""From scores to rows: per state, per rollout, per step; and the catalogue of metrics that names the columns.

Rows always come in the order of the checkpoints. `step` is a nullable integer (``Int64``; missing when unknown, then
`label` names and the row order orders). `teacher` is the teacher's name. `states` is one of ``on-policy`` (the
checkpoint's own), ``start`` (the first checkpoint's), ``teacher`` (the teacher's), ``back`` (the checkpoint's own,
scored by the first checkpoint; its rows are listed under the checkpoint whose states they are), ``near-on-policy``
(recorded by the trainer at or shortly after the checkpoint; in tables of metrics alone).

**States** (:func:`measure`), one row a state, terminal ones left out::

    step label teacher states k prompt_index prompt_id group rollout_index position sampled_id gradient_squared_norm
    shared_tokens <one column a metric>

`gradient_squared_norm` and `shared_tokens` are what ratios of sums are weighted by: a mean over states of such a metric
r is Σ w r / Σ w, in every table, w the column that the metric names. A mean without the weights is another number.

**Rollouts** (:func:`rollout_table`), one row a rollout::

    step label teacher states k prompt_index prompt_id group rollout_index n_states stop_reason is_correct reward
    compression_ratio cycle_ratio cycle_start is_repeating
    <one column a metric: its mean over the rollout's defined states>

**Summary** (:func:`summarize`), one row a (step, states, metric), the columns of ``report.json``::

    step label teacher states metric k aggregation value ci_low ci_high approximate band_low band_high
    bound_low bound_high n_states n_rollouts n_prompts n_undefined n_effective floor within_floor

`aggregation` is ``token mean`` or ``ratio of sums`` for the metrics of the catalogue. More rows tell of the responses
themselves, for ``on-policy`` and for ``teacher`` (then equal for every checkpoint):

- ``rollout mean``: ``accuracy`` (where answers are known), ``truncation_rate``, ``response_length``, and of
  :mod:`~opd_diag.tables.repetition` ``compression_ratio``, ``cycle_ratio``, ``repetition_rate``;
- ``pooled`` (:func:`~opd_diag.tables.diversity.diversity_rows`): ``distinct_bigram_ratio``,
  ``distinct_trigram_ratio``, ``unigram_entropy``; `n_states` counts n-grams, `n_undefined` the states that end none;
- ``pooled``, ``on-policy`` alone: ``top_advantage_share``, ``reward_auroc`` (:mod:`~opd_diag.tables.rewards`);
- ``state mean``, ``on-policy`` alone: ``teacher_state_coverage``, where it was looked at; `n_states` counts the
  teacher's states;
- ``state mean``: ``student_stop_probability_at_stops``, ``…_after_answers``, ``…_at_truncation`` and the teacher's; not
  equal for every checkpoint on ``teacher`` either. `n_undefined` counts responses whose place cannot be told.

And on every state set but ``back`` and ``near-on-policy``, where a second pass was made (:mod:`opd_diag.tables.fits`):

- ``subsample``: ``fitted_temperature``, ``reverse_kl_after_temperature``, ``gradient_coherence``.

`approximate`: the 95 % interval may cover less often than that (:attr:`opd_diag.stats.Estimate.is_approximate`).
`band_low`/`band_high` hold, at 95 %, the whole curve of a metric over the checkpoints on one state set at once; of the
catalogue's metrics alone. `n_effective`: as many independent values would have so small an error.
`k` is missing for metrics that do not depend on it. `bound_low`/`bound_high` are NaN while all values are exact. Of a
teacher behind a server that returned its top K alone, many metrics lie between bounds
(:mod:`opd_diag.tables.bounds`): `value` is NaN then, and the interval reaches from the lower end of that of the mean
lower bound to the upper end of that of the mean upper bound; an end without a bound is infinite.
`floor` is the precision floor of the metric (:mod:`opd_diag.tables.floors`), NaN where none was measured;
`within_floor` whether the value is within twice of it from what it is between equal models, missing where that cannot
be said.

**Concentration** (:func:`concentration_table`), one row a (step, states, k of the grid)::

    step label teacher states k
    overlap_ratio overlap_ratio_ci_low overlap_ratio_ci_high              (and the same three for each of
    student_overlap_mass teacher_overlap_mass student_topk_mass teacher_topk_mass)
    overlap_ratio_band_low overlap_ratio_band_high      (and of student_overlap_mass, teacher_overlap_mass)
    n_states n_rollouts n_prompts

`<name>_band_low`/`<name>_band_high` hold, at 95 %, the curve of one (step, states) at every k at once.

**Depth** (:func:`depth_table`), one row a (step, states, metric, bin of positions)::

    step label teacher states metric depth_low depth_high value ci_low ci_high band_low band_high
    n_states n_rollouts n_prompts

`depth_low` ≤ position < `depth_high`. `band_low`/`band_high` hold, at 95 %, all bins of a primary metric of one (step,
states) at once; NaN for other metrics.

**Differences** (:func:`difference_table`), one row a (pair of steps, states, metric), value = later − earlier, paired
by prompt; of the responses, for ``on-policy`` alone, but of stopping for ``teacher`` too::

    from_step from_label to_step to_label teacher states metric k value ci_low ci_high approximate bound_low bound_high
    p_value p_adjusted depends_on_average n_states n_prompts

`p_value` is two-sided, against no difference; `p_adjusted` is Holm's over the primary metrics and all state sets of one
pair of steps, NaN for other metrics. `depends_on_average`: whether the averages over tokens, rollouts and prompts lead
to different conclusions: opposite directions, or one establishes a direction, another none, and the difference of the
two is itself established; missing where one is not known and for the responses. `n_states` is the later step's, missing
for the responses.

**Averages** (:func:`average_table`), one row a (step, states, metric, average), `average` one of ``token`` (the
summary's), ``rollout``, ``prompt``::

    step label teacher states metric k average value ci_low ci_high n_states n_rollouts n_prompts

All of them are in ``averages.csv``, those of primary metrics in ``report.json`` too.

**Split** (:func:`split_table`), one row a (checkpoint after the first, metric, part, orders) of the change on own
states, all parts of one (checkpoint, metric, orders) on the same prompts::

    from_step from_label step label teacher metric k part value ci_low ci_high approximate n_prompts orders

`part` is ``on_policy_change`` = ``policy_change`` + ``state_change``. Where ``back`` was scored there are rows with
`orders` 2 besides, averages of both orders, and ``order_difference``.

**Coverage** (:func:`opd_diag.metrics.covered`), one row a state of the teacher's that was looked at; `is_covered` is
missing where it is undefined::

    step label teacher prompt_index prompt_id rollout_index position is_covered

**Stops** (:func:`stop_table`), for ``on-policy`` and ``teacher``, one row a (rollout, place), `place` one of ``stop``,
``answer``, ``truncated``; where the place cannot be told `position` is missing and the log-probabilities are NaN; kept
in ``stops/``::

    step label teacher states prompt_index prompt_id rollout_index position place
    student_stop_logprob teacher_stop_logprob

**Strata** (:func:`strata_table`), one row a (step, states, by, level, metric), `by` one of ``is_correct`` (not
``back``, which has the responses of ``on-policy``), ``group``, ``in_cycle`` (``on-policy`` and ``teacher``: whether the
state's token lies in the repeating end of its response), `level` ``True`` or ``False`` or the name of a group. Metrics
are those of the catalogue, and by ``is_correct`` and ``group``, on ``on-policy`` and ``teacher``, those of the summary
with `aggregation` ``rollout mean``, and ``state mean`` of stopping; ``accuracy`` by group alone. All of them are in
``strata.csv``; ``report.json`` has those of primary metrics and of responses::

    step label teacher states by level metric k aggregation value ci_low ci_high
    n_states n_rollouts n_prompts n_undefined

**Fits** (:func:`fits_table`), one row a (step, states) that got a second pass; each value is followed by its interval,
``<name>_ci_low`` and ``<name>_ci_high``::

    step label teacher states fitted_temperature reverse_kl_after_temperature reverse_kl explained_share
    gradient_coherence beyond n_states n_rollouts n_prompts n_undefined

`reverse_kl` is that of the subsample, at temperature 1; `explained_share` is 1 - reverse_kl_after_temperature /
reverse_kl, NaN where that is below 1e-6 nats: rounding. `beyond` is ``below`` or ``above`` where the best temperature
lies outside 1/4 to 4 (then the first two and `explained_share` are NaN), else empty. Counts are of the states that
define `reverse_kl`.

**Baselines** (:func:`baseline_table`), one row a (step, states, metric, baseline) of the overlap ratio and both overlap
masses, `baseline` one of ``chance``, ``shuffled teacher``, ``other precision``; kept in ``baselines.parquet``::

    step label teacher states metric k baseline value ci_low ci_high n_states n_prompts

**K sweep** (:func:`~opd_diag.tables.k_sweep.sweep_table`), one row a (step, states, metric, K) of a teacher behind a
server: the mean bounds, had it returned its first `top` ids alone; empty where whole distributions were seen::

    step label teacher states metric top bound_low bound_high n_states

**Logged** (:func:`logged_table`), one row a number that the trainer logged, on its own steps; all of them are in
``logged.csv``, those with a name of ours, at most 400 a curve, in ``report.json``::

    step metric value trainer_key source note

`step` counts updates finished when the number was logged: what it measures came before the last of them, and may be a
mean over several. `metric` is our name where the trainer's means one of our quantities, else the trainer's; `value` has
our sign. `source` is the file, relative to the run folder; `note` says how the definition differs.

**Attempts** (:func:`~opd_diag.tables.outcomes.attempt_table`), one row a (writer, prompt) with responses that could be
graded; **pass@k** (:func:`~opd_diag.tables.outcomes.pass_table`), one row a (writer, k); **items**
(:func:`~opd_diag.tables.outcomes.item_table`), one row a prompt that both have, `outcome` one of ``kept``, ``solved``,
``forgotten``, ``unsolved``::

    label step prompt_index prompt_id group n_correct n_rollouts
    label step k value ci_low ci_high approximate n_prompts n_rollouts
    prompt_index prompt_id group first_correct first_rollouts last_correct last_rollouts outcome p_adjusted

**Comparison** (:func:`~opd_diag.tables.comparison.comparison_table`), one row a (state set, metric) and run, held
against the first run; `value` is the second less the first, `paired` whether both answered the same prompts,
`n_prompts` those of the difference (of both sides together where they share none), `first_prompts` and
`second_prompts` those of each side::

    states metric first second first_value second_value value ci_low ci_high p_value approximate paired n_prompts
    first_prompts second_prompts bound_low bound_high

**Distances** (:func:`~opd_diag.tables.teachers.distance_table`), one row of the student and each teacher, then one a
pair of teachers; each value is followed by its interval, ``<name>_ci_low`` and ``<name>_ci_high``; the bounds are those
of `symmetric_kl`, where a server returned its top K alone::

    first second symmetric_kl relative overlap_ratio advantage_correlation tas bound_low bound_high n_states n_prompts

**Cohort** (:func:`~opd_diag.tables.horizon.cohort_table`), the depth table of the rollouts that reach a length, cut
there, with `survivors`, the share of all rollouts that have a state at or beyond `depth_low`; **survivors**
(:func:`~opd_diag.tables.horizon.survivor_table`), one row a (step, states, depth); **entropies**
(:func:`~opd_diag.tables.horizon.entropy_table`), rows of the depth table on own states, over all rollouts that get
there::

    step label states depth n_rollouts n_prompts survivors

**Excess** (:class:`~opd_diag.tables.excess.Excess`), one row a (step, metric, control, bin): a metric at a checkpoint's
own states, `own`, less that at a control's, `than`, on cohorts and prompts that both have; `control` is ``teacher``,
the teacher's own responses, or the label of another checkpoint, whose own they are; both are scored by the checkpoint
they are of, the teacher's by this one::

    step label metric control depth_low depth_high value ci_low ci_high own than
    n_prompts n_rollouts n_control_rollouts

**Continuations** (:func:`~opd_diag.tables.continuations.continuation_table`), one row a (kind of prefix, its tokens,
metric), `prefix` one of ``none``, ``student``, ``student, correct``, ``student, wrong``, ``teacher``, ``filler``,
`metric` one of ``teacher_accuracy``, ``student_accuracy``, ``continuation_advantage``, the one less the other;
`answered` is the share of prefixes that read as the right answer by themselves::

    prefix depth metric value ci_low ci_high approximate n_prompts n_prefixes n_rollouts answered

**Distance** (:func:`~opd_diag.tables.distance.distance_table`), one row a (checkpoint, part of the response) of the
forward KL at the teacher's states, `part` one of ``whole``, ``opening``, ``end`` (the stop token), ``middle``;
**distance by token** (:func:`~opd_diag.tables.distance.token_table`), one row a token that the teacher wrote::

    label part value ci_low ci_high per_response per_response_ci_low per_response_ci_high
    share share_ci_low share_ci_high token_share n_states n_rollouts n_prompts
    label token_id token n_states value share

`value` is nats a token, `per_response` nats a response, `share` of the distance, `token_share` of the tokens.

**Tails** (:func:`~opd_diag.tables.tails.tail_table`), one row a (checkpoint, state set) of a metric: percentiles over
states, and which share of the metric's sum the farthest 1 % and 10 % of the states hold, each with its interval::

    step label teacher states metric p50 p90 p99 held_by_1 held_by_1_ci_low held_by_1_ci_high held_by_1_approximate
    held_by_10 held_by_10_ci_low held_by_10_ci_high held_by_10_approximate n_states n_prompts n_undefined n_infinite

**Responses to be taught** (:func:`~opd_diag.tables.sft.sft_table`), one row a response of the teacher::

    prompt_index prompt_id group rollout_index n_tokens is_correct kept reason taught stop_taught

`reason` says why it is left out, empty where it is kept. Of those, `taught` is what a trainer makes of its text with
the student's template: ``as sampled``, ``other tokens`` of the same text, ``other text``; `stop_taught` whether a stop
token follows.

**Prompts** (:func:`~opd_diag.tables.prompts.prompt_table`), one row a prompt, every response counting alike: each of
the quantities ``student_overlap_mass teacher_overlap_mass overlap_ratio teachable_mass reverse_kl student_entropy
teacher_entropy reverse_kl_of_response response_length truncation_rate accuracy teacher_accuracy teacher_lead`` and
after it ``<name>_ci_low``, ``<name>_ci_high`` (95 % over the responses to this prompt) and ``<name>_shrunken`` (the
mean drawn toward that of all prompts); where prompts were chosen (:func:`~opd_diag.tables.selection.choose`) the last
four too, `outcome` one of ``top``, ``drawn``, ``low entropy``, ``lower``, ``not ranked``. **Reliability**
(:func:`~opd_diag.tables.prompts.reliability_table`), one row a quantity. **Sets**
(:func:`~opd_diag.tables.prompts.set_table`), one row a quantity and comparison, value = second - first, with the names
of both, and **held out**, the same of the `others` (in place of `first`) and the `chosen` (of `second`) prompts::

    prompt_index prompt_id group n_rollouts <quantities> is_chosen outcome rank reason
    quantity mean between within reliability n_prompts n_rollouts
    quantity first first_ci_low first_ci_high second second_ci_low second_ci_high value ci_low ci_high approximate
    n_first n_second is_paired

**Reconciliation** (:func:`~opd_diag.tables.reconciliation.reconciliation_table`), one row a checkpoint whose own batch
the trainer recorded, where its loss is a divergence that we measure::

    step label metric value logged logged_step difference outcome n_states n_rollouts n_recorded updates

`value` is ours, a token mean over `n_rollouts` of the `n_recorded` responses of the batch; `logged` is the loss at
`logged_step`, a mean over `updates` updates; `difference` is ours minus theirs, NaN where they cannot be compared.
"""

from opd_diag.tables.assembled import Tables, assemble, from_rows
from opd_diag.tables.averages import average_table
from opd_diag.tables.baselines import baseline_table, save_baselines
from opd_diag.tables.catalogue import BY_NAME, CATALOGUE, METRIC_NAMES, Metric
from opd_diag.tables.concentration import concentration_table
from opd_diag.tables.coverage import save_coverage
from opd_diag.tables.depth import depth_table
from opd_diag.tables.fits import fits_table
from opd_diag.tables.logged import logged_table
from opd_diag.tables.split import split_table
from opd_diag.tables.states import measure, rollout_table
from opd_diag.tables.stops import save_stops, stop_table
from opd_diag.tables.stored import load_tables, save_states
from opd_diag.tables.strata import strata_table
from opd_diag.tables.summary import difference_table, summarize

__all__ = [
    "BY_NAME",
    "CATALOGUE",
    "METRIC_NAMES",
    "Metric",
    "Tables",
    "assemble",
    "average_table",
    "baseline_table",
    "concentration_table",
    "depth_table",
    "difference_table",
    "fits_table",
    "from_rows",
    "load_tables",
    "logged_table",
    "measure",
    "rollout_table",
    "save_baselines",
    "save_coverage",
    "save_states",
    "save_stops",
    "split_table",
    "stop_table",
    "strata_table",
    "summarize",
]
