"""What a finished report left in OUT_DIR, read again without a model: who wrote which responses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from opd_diag.errors import StoreError
from opd_diag.records.rollout import Rollout, load_rollouts
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.replay.marker import refuse_damaged
from opd_diag.replay.recorded import TEACHER_LABEL


def finished_summary(out_dir: str | Path) -> pd.DataFrame:
    """Read the summary of a finished report, whose files were held against their checksums.

    Raises
    ------
    StoreError
        The folder holds no finished report, or a file in it is damaged.
    """
    folder = Path(out_dir)
    summary = folder / "summary.parquet"
    if not summary.is_file():
        raise StoreError(f"{folder} holds no finished report: there is no {summary.name}. Run opd-diag report first.")
    refuse_damaged(folder)
    return pd.read_parquet(summary)


def finished_rollouts(out_dir: str | Path) -> dict[str, list[Rollout]]:
    """Read the responses that a report sampled, or that stood in for them; those of an earlier report stay unread.

    Returns
    -------
    dict
        By the label of who wrote them: the checkpoints in their order, then the teacher, where it wrote some.

    Raises
    ------
    StoreError
        The folder holds no finished report, or a file in it is damaged.
    """
    folder = Path(out_dir)
    table = finished_summary(folder)
    labels = list(dict.fromkeys(table.loc[table["states"] == "on-policy", "label"]))
    teacher = [TEACHER_LABEL] if "teacher" in set(table["states"]) else []
    by_writer: dict[str, list[Rollout]] = {label: [] for label in (*labels, *teacher)}
    for file in sorted((folder / "rollouts").glob("*.jsonl")):
        if file.name == "start.jsonl" or file.stem.endswith(f".{NEAR_ON_POLICY}"):
            continue  # the first checkpoint's again; and those of weights in training
        for rollout in load_rollouts(file):
            if rollout.provenance.weights in by_writer:
                by_writer[rollout.provenance.weights].append(rollout)
    return {label: rollouts for label, rollouts in by_writer.items() if rollouts}
