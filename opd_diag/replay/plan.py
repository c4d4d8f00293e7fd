"""What a replay will do: which weights, on which prompts, with which settings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.records.rollout import Rollout
from opd_diag.records.settings import NEAR_ON_POLICY, Settings
from opd_diag.replay.served import Served
from opd_diag.runs.digests import Digests
from opd_diag.runs.logged import LogsOfRun
from opd_diag.tokenization import EncodedPrompt, Tokenizer


@dataclass(frozen=True)
class ReplayPlan:
    """What a report will do: which weights, on which prompts, with which settings."""

    run_dir: Path
    settings: Settings
    checkpoints: tuple[Checkpoint, ...]
    """Those to score, step 0 first where it is known."""
    blocked: tuple[Checkpoint, ...]
    """Those that cannot be loaded; the report names them."""
    step_zero_known: bool
    """Whether the first checkpoint is the initial student."""
    teacher: Checkpoint
    prompts: tuple[EncodedPrompt, ...]
    recorded: dict[str, tuple[Rollout, ...]]
    """Recorded rollouts by the label of the checkpoint that wrote them; the other checkpoints sample."""
    tokenizer: Tokenizer
    teacher_tokenizer: Tokenizer | None
    """None when the teacher brings none."""
    notes: tuple[str, ...]
    """What a reader of the report must know."""
    near: dict[str, tuple[Rollout, ...]] = field(default_factory=dict)
    """What a trainer recorded, by the label of the checkpoint that scores it as ``near-on-policy``."""
    fresh: dict[str, int] = field(default_factory=dict)
    """How many responses it recorded of each checkpoint's very weights, by label."""
    logged: LogsOfRun = field(default_factory=LogsOfRun, compare=False, repr=False)
    """What the trainer logged."""
    served: Served | None = None
    """The teacher's server; None where it is loaded here."""
    other_dtype: str | None = None
    """Why bodies run in another precision than was asked for; None where they do not."""
    digests: Digests = field(default_factory=Digests, compare=False, repr=False)
    """What is known of the files of all these."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.run_dir.resolve().name

    @property
    def first(self) -> Checkpoint:
        """The checkpoint whose rollouts make the ``start`` state set."""
        return self.checkpoints[0]

    def prompts_key(self) -> str:
        """Give a key of the ids that both models see."""
        return content_key(
            [[p.index, p.prompt.id, p.prompt.answer, p.prompt.group, p.ids, p.teacher_ids] for p in self.prompts]
        )

    def description(self) -> list[str]:
        """Say what the report will cost, one line a fact."""
        settings = self.settings
        responses = len(self.prompts) * settings.rollouts_per_prompt
        writers = [*self.checkpoints, *([self.teacher] if "teacher" in settings.states else [])]
        sampled = [c for c in writers if c.label not in self.recorded]
        # the first checkpoint's own states are the start's, and step 0 scoring them is the same again
        repeated = len({"on-policy", "start", "back"} & {*settings.states}) - 1
        everywhere = [states for states in settings.states if states != NEAR_ON_POLICY]
        passes = len(self.checkpoints) * len(everywhere) - max(0, repeated) + len(self.near)
        start = os.path.normpath(self.first.path) if self.step_zero_known else "unknown (name it with --student)"
        return [
            f"run          {self.run_dir} ({len(self.checkpoints)} checkpoints: "
            f"{', '.join(c.label for c in self.checkpoints)})",
            f"teacher      {self.served.said() if self.served else os.path.normpath(self.teacher.path)}",
            f"step 0       {start}",
            f"prompts      {len(self.prompts)} × {settings.rollouts_per_prompt} rollouts of at most "
            f"{settings.max_new_tokens} tokens, temperature {settings.temperature:g}, top-p {settings.top_p:g}, "
            f"seed {settings.seed}",
            f"to sample    {len(sampled)} models × {responses} responses "
            f"(at most {len(sampled) * responses * settings.max_new_tokens:,} tokens)"
            f"{', by vLLM' if settings.sampler == 'vllm' else ''}",
            f"to score     {passes} sets of states ({', '.join(settings.states)}), each by a student; the teacher runs "
            "once over those that several share",
        ]
