"""What layout tests share: the checkpoints of a layout as short rows, and a state of the Hugging Face Trainer."""

import json

from opd_diag.runs.layouts.run import Run


def rows(find, root, **known):
    """Give (label, step, kind, path below root, what blocks it) of each checkpoint that a layout finds."""
    return [(c.label, c.step, c.kind, str(c.path.relative_to(root)), c.code) for c in find(Run(root, **known))]


def state(**values):
    """Give ``trainer_state.json`` with these values, as `write` takes it."""
    return {"trainer_state.json": json.dumps(values)}
