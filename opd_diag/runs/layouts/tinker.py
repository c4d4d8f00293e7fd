"""What tinker-cookbook writes: a list of checkpoints whose weights are on the service."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.holdings import Weights
from opd_diag.runs.layouts.run import DIGITS, Run, checkpoint_at

LIST = "checkpoints.jsonl"


def tinker(run: Run) -> list[Checkpoint]:
    """Give what ``checkpoints.jsonl`` lists, each blocked with the command that downloads it.

    Steps are ``batch``, the finished updates, else the number in the name; rolling checkpoints, which the service
    deletes, are left out. The later of two records of one step is the one that counts.
    """
    if LIST not in run.disk.names(run.folder):
        return []
    found: dict[tuple[int | None, str], Checkpoint] = {}
    for record, address in _records(run):
        name = record["name"]
        number = record.get("batch")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 10**DIGITS:
            match = re.search(r"(?<!\d)\d{1,15}(?!\d)", name)
            number = int(match[0]) if match and name != "final" else None
        label = name if number is None else f"step {number}"
        found[number, "" if number is not None else name] = checkpoint_at(
            run.folder, _remote(address, f"adapters/{label.replace(' ', '-')}"), label, number, disk=run.disk
        )
    return sorted(found.values(), key=lambda c: (c.step is None, c.step or 0))


def download_command(address: str, out: str) -> str:
    """Give the command that downloads weights from the service."""
    return f"tinker checkpoint download {shlex.quote(address)} --output {shlex.quote(out)}"


def _remote(address: str, out: str) -> Weights:
    way_out = (
        f"Run: {download_command(address, out)}; make a PEFT adapter of it in Python with tinker_cookbook.weights."
        f"build_lora_adapter(base_model=..., adapter_path={out!r}, output_path={out + '-peft'!r}); then list it with "
        f"--steps 'STEP={out}-peft'."
    )
    blocker = f"Its weights are on the service ({address}), not on this machine."
    return Weights("other").blocked("REMOTE_ONLY", blocker, way_out)


def _records(run: Run) -> Iterator[tuple[dict[str, Any], str]]:
    """Read the records that name weights; what weights for sampling there are go before those for training."""
    try:
        lines = run.disk.text(run.folder / LIST).split("\n")
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # the last line of a run that goes on may be cut
            continue
        if not isinstance(record, dict) or not isinstance(record.get("name"), str):
            continue
        paths = [record.get(key) for key in ("sampler_path", "state_path")]
        address = next((path for path in paths if isinstance(path, str) and path.startswith("tinker://")), None)
        if address and not record["name"].startswith("rolling_"):
            yield record, address
