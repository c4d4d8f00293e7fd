"""What the self-tests hold their numbers against, each with the reason for it: one place."""

from __future__ import annotations

PROBE_ROLLOUTS = 16
"""Responses that the tests with models look at, one a prompt: enough clusters for an interval, a few percent of a
report."""

PROBE_TOKENS = 48
"""Tokens of one of them: a shift or a wrong id shows at every token, so that beginnings are enough."""

LEAST_TOKENS = 30
"""Tokens below which a mean decides nothing."""

LEVEL = 0.99
"""Of the intervals: a report asks some ten questions of this kind, and none may be failed by chance."""

SELF_KL = 1e-4
"""Mean reverse KL in nats of a model against itself. The same sums over the same logits make some 1e-9; noise that a
model adds when it runs (dropout that is left on) makes more than .01."""

SELF_OVERLAP = 0.999
"""Overlap ratio of a model with itself: 1, but for logits that are equal and change places."""

BATCH_KL = {"float32": 1e-4, "sixteen bits": 0.05}
"""Mean reverse KL in nats between the same sequences run together and alone. Float32 makes 1e-10 to 1e-6; 16 bits make
.001 to .01. Padding that is attended to, or positions that depend on the batch, make more than .1."""

OFFSETS = (-2, -1, 0, 1, 2)
"""By how many tokens the sampled tokens are moved against what predicts them."""

SHIFTED = 0.5
"""Nats that a model must give to the tokens at another offset beyond those that were sampled. One that is late by a
token gives 9 (measured); one that writes random numbers, each as likely as the last, gives .3."""

SHIFTED_SHARE = 0.5
"""Part of what a model expects to know of its own tokens, by place, that it must know of those at another offset for
that to be where they belong. One that is late by a token knows more than .9 there (measured); one that cannot read the
responses at all may know .3 by some habit."""

LOWEST_LOGPROB = -30.0
"""Log-probability in nats that stands for all below it: a masked id must not make a mean infinite."""

DIVERSE = 0.5
"""Entropy in nats of the tokens themselves, whatever the state, below which no model can show that it knows which
comes where."""

KNOWN_SHARE = 0.1
"""Part of what a model expects to know of tokens of its own, by place, that it must know of those it is given. A model
that reads permuted ids knows nothing; teachers that write in another way know more than .3 (measured)."""

KNOWN = 0.1
"""Nats that a model must expect to know before it is held against it."""

EXPECTED_Z = (-4.0, 5.0)
"""Standard errors, of the models' own making, by which surprise may miss what the model expects, below and above. Where
many tokens make the sum that is 3 in 100,000 below and less above. Where few rare tokens make it, it is no bound
above: see `EXPECTED_CHANCE`. Below it is one, as a token that comes as expected takes only a little away."""

EXPECTED_CHANCE = 1e-4
"""Bound (Chernoff's) on the chance of so much surprise, that must be met too before a sum above fails: where models are
nearly sure of every token, as of first tokens, one rare token makes 5 standard errors, up to 3 times in 100."""

EXPECTED_DIFFERENCE = 0.02
"""Nats by which it must also miss it: below that, other numerics than ours will do."""

EXPECTED_SHARE = 0.1
"""Part of the mean entropy by which it must also miss it: a temperature of .9 makes some .1 to .2."""

FITS_BETTER = 0.5
"""Part of the difference that must be left at another temperature, or another offset, for that to be the reason."""

EXPLAINED = 0.2
"""Part of a difference within the limit of rounding that may be left at another temperature for that to be its cause.
Rounding fits no temperature: it leaves more than .9."""

REPEATED_SHARE = 0.01
"""Spread of log-probabilities between two passes, as part of the median |advantage|: one percent moves no metric."""

REPEATED_NATS = 1e-6
"""The same in nats, where the models hardly differ: rounding of float32."""

LONGEST_AFTER = 16
"""Tokens that may follow the generation prompt of the template: the start of a response that is given, or a switch for
thinking."""

ODD_ENDS = 0.02
"""Share of responses that may end oddly, and one response always may: a stop token drawn in the middle by an engine
that goes on, a stop string. A record that strips or pads does it to nearly all of those it can be done to."""

LIKELIER = 7.0
"""Nats by which all tokens must be likelier at the stated temperature than at 1, or less likely, to tell which one they
were drawn at: the wrong one comes out once in a thousand."""
