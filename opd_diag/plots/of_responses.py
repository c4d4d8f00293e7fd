"""Quantities that are no metric of one state: facts on responses, and fits on a subsample."""

from __future__ import annotations

from opd_diag.plots.quantity import Quantity

SAMPLED = "exists only on states that the checkpoint sampled itself at temperature 1 and top-p 1"
"""Why a sampled quantity may be undefined, a clause."""

_THINNED = (
    "(1/m) Σ [1 - C(N - c, m) / C(N, m)] over the distinct {}, c how often each occurs among all N; m is half of the "
    "smallest set's N"
)
_DISTINCT = "Distinct n-grams: arXiv 1510.03055; at equal numbers: Hurlbert (1971)"

PLACES = {
    "at_stops": ("at stops", "where a response ended by itself", "no response ended by itself"),
    "after_answers": ("after answers", "right after the final answer", "no answer was recognised"),
    "at_truncation": ("at the cut", "where a response was cut at the length limit", "no response was cut"),
}
"""Where the probability of stopping is read: in a title, in a sentence, and why it may be undefined there."""


def _stop_probability(who: str, place: str) -> Quantity:
    title, where, undefined = PLACES[place]
    return Quantity(
        name=f"{who}_stop_probability_{place}",
        title=f"{who.capitalize()} stops {title}",
        symbol="",
        unit="probability",
        meaning=f"Probability that the {who} gives to any stop token of either model, {where}.",
        caution="A teacher that does not stop where the student does pushes it to go on; at stops the student's own is "
        "high by selection, so read the teacher's there.",
        undefined=undefined,
        formula="Σ over the stop ids of both models, a mean over such places",
        reference="arXiv 2609.20511",
    )


OF_RESPONSES = (
    Quantity(
        name="accuracy",
        title="Accuracy",
        symbol="",
        unit="ratio",
        meaning="Share of the rollouts that give the reference answer.",
        caution="Known only where prompts have answers, and no better than the rule that compares them.",
        undefined="no prompt has a reference answer",
    ),
    Quantity(
        name="truncation_rate",
        title="Truncation rate",
        symbol="",
        unit="ratio",
        meaning="Share of the rollouts that were cut at the length limit.",
        caution="Depends on the limit: a student that has learnt to stop later looks like one that cannot stop.",
        undefined="no stop reason is known",
    ),
    Quantity(
        name="response_length",
        title="Response length",
        symbol="",
        unit="tokens",
        meaning="Mean number of tokens of a response.",
        caution="Cut at the length limit, so its mean is a lower bound where the truncation rate is not 0.",
        undefined="there is no rollout",
    ),
    Quantity(
        name="distinct_bigram_ratio",
        title="Distinct bigrams",
        symbol="",
        unit="ratio",
        meaning="Share of distinct ones among equally many token pairs of all responses: 1 if no pair occurs twice.",
        caution="Random tokens are as varied as can be, and a healthy student that learns a fixed format loses variety "
        "too; compares only within one run, as all sets are thinned to half of the smallest.",
        undefined="the responses are too short",
        formula=_THINNED.format("pairs"),
        reference=_DISTINCT,
    ),
    Quantity(
        name="distinct_trigram_ratio",
        title="Distinct trigrams",
        symbol="",
        unit="ratio",
        meaning="Share of distinct ones among equally many token triples of all responses: 1 if no triple occurs "
        "twice.",
        caution="As for bigrams; near 1 unless whole phrases recur, so a student that writes random digits has a high "
        "value.",
        undefined="the responses are too short",
        formula=_THINNED.format("triples"),
        reference=_DISTINCT,
    ),
    Quantity(
        name="unigram_entropy",
        title="Unigram entropy",
        symbol="",
        unit="nats",
        meaning="Entropy of the tokens of all responses pooled, about the log of how many different ones are in use.",
        caution="Falls when the student uses few tokens only, digits for example, whatever their order; a teacher that "
        "writes tersely lowers it too, so hold it against the teacher's responses; a little low in few tokens.",
        undefined="the responses are too short",
        formula="-Σ (c/N) log(c/N) + (K - 1)/(2N) over the K distinct tokens, c how often each occurs among all N",
        reference="Miller (1955), for the second term",
    ),
    Quantity(
        name="teacher_state_coverage",
        title="Teacher state coverage",
        symbol="",
        unit="ratio",
        meaning="Share of the teacher's states that have one of the student's nearby, in the teacher's final hidden "
        "space: .97 for independent states of one distribution, nearer to 1 where both write the same, lower where "
        "states come in clumps.",
        caution="Near means as near as the teacher's own fifth neighbour of another prompt, so it compares within one "
        "run and teacher; responses of other lengths or another format lower it without harm to the answers.",
        undefined="the teacher's states were not looked at, or there are too few prompts",
        formula="share of the teacher's states i with a student's state of another prompt within r_i, the distance "
        "from i to the fifth nearest of the teacher's states of other prompts",
        reference="arXiv 2002.09797, section 3.2",
    ),
    Quantity(
        name="top_advantage_share",
        title="Top 1 % share of the advantage",
        symbol="",
        unit="ratio",
        meaning="Share of the sampled advantage, in size, that the top 1 % of the tokens hold: .01 if all were alike.",
        caution="A few tokens may rightly hold it, such as where an answer forks; high values say that a gradient of "
        "few rollouts is noisy, not that it is wrong.",
        undefined=f"the sampled advantage {SAMPLED}",
        formula="Σ |A| over the largest 1 % of tokens / Σ |A|, with A = log q(y) - log p(y) at the sampled token y",
        reference="arXiv 2603.25562, section on imbalance",
    ),
    Quantity(
        name="reward_auroc",
        title="AUROC of the mean reward",
        symbol="",
        unit="ratio",
        meaning="Probability that a correct response has a higher mean sampled advantage than a wrong one: .5 is "
        "chance.",
        caution="Does not predict success: it was .73 in the paper's run that succeeds and .75 in the one that fails.",
        undefined="it takes correct and wrong responses, and sampled advantages of both",
        formula="P(A̅ of a correct response > A̅ of a wrong one), ties half; A̅ the mean of log q(y) - log p(y)",
        reference="arXiv 2604.13016, section 6.2",
    ),
    Quantity(
        name="compression_ratio",
        title="Compression ratio",
        symbol="",
        unit="ratio",
        meaning="Bytes of a response's text over its bytes compressed by zlib: some 1.4 to 2.3 for prose, over 10 for "
        "loops.",
        caution="Longer texts compress better, terse formats and tables too; hold it against the teacher's responses.",
        undefined="no response has a text of 256 bytes",
        formula="bytes of the last 10,000 characters / bytes of these after zlib, a mean over responses of 256 bytes "
        "or more",
        reference="arXiv 2604.08527 (repetition rate: more than 10)",
    ),
    Quantity(
        name="cycle_ratio",
        title="Tokens in a closing loop",
        symbol="",
        unit="ratio",
        meaning="Share of a response's tokens that lie in an exactly repeating tail: one block three times or more, "
        "20 tokens or more.",
        caution="Exact repeats alone: a loop that counts up, or varies a word, is not seen.",
        undefined="there is no rollout",
        formula="tokens of the longest tail of some period / tokens of the response but the stop token, a mean over "
        "responses",
        reference="Gusfield (1997), Algorithms on strings, trees, and sequences, section 1.4, for the search",
    ),
    Quantity(
        name="repetition_rate",
        title="Repetition rate",
        symbol="",
        unit="ratio",
        meaning="Share of the rollouts that repeat themselves: half of the tokens or more lie in a repeating tail, or "
        "the text compresses more than tenfold.",
        caution="A collapse to few tokens in no fixed order does not loop: read unigram entropy too.",
        undefined="there is no rollout",
        formula="share of the rollouts with a cycle ratio of .5 or more, or a compression ratio above 10",
        reference="arXiv 2604.08527, for the compression",
    ),
    *(_stop_probability(who, place) for place in PLACES for who in ("student", "teacher")),
)
"""What is known of the responses as such."""

OF_FITS = (
    Quantity(
        name="fitted_temperature",
        title="Fitted temperature τ*",
        symbol=r"$\tau^*$",
        unit="ratio",
        meaning="The one temperature of the student at which its reverse KL to the teacher is least: over 1 it is too "
        "sharp, under 1 too flat.",
        caution="It fits whatever there is: read it with the reverse KL that remains.",
        undefined="nothing was fitted",
        formula="argmin over τ of the mean KL(p_τ ‖ q), p_τ the student's logits divided by τ, on a seeded subsample",
        reference="Guo et al. (2017), temperature scaling",
    ),
    Quantity(
        name="reverse_kl_after_temperature",
        title="Reverse KL left at τ*",
        symbol=r"$\mathrm{KL}(p_{\tau^*}\,\|\,q)$",
        unit="nats",
        meaning="What remains of the reverse KL at the fitted temperature: what is more than sharpness.",
        caution="Of a subsample: hold it against the reverse KL of the same states, not against that of the whole set.",
        undefined="nothing was fitted",
        formula="min over τ of the mean KL(p_τ ‖ q)",
    ),
    Quantity(
        name="gradient_coherence",
        title="Gradient coherence",
        symbol="",
        unit="ratio",
        meaning="How far the reverse-KL gradients of different prompts point the same way: 1 if all are one, 0 if they "
        "are unrelated.",
        caution="Of the output matrix alone, at a few hundred states: low coherence is what the paper suspects behind "
        "strong teachers that fail, and has not been shown to cause it.",
        undefined="it takes two prompts, and models that differ",
        formula="mean of ⟨G_t, G_u⟩ over pairs of states of different prompts / mean of ‖G_t‖², G_t = g_t h_tᵀ",
        reference="arXiv 2604.13016, section 6 (stated there, not tested)",
    ),
)
"""What is fitted on a subsample of the states."""
