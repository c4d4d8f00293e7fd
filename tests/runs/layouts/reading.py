"""What layout tests look at: the checkpoints of a layout, as short rows."""

from opd_diag.runs.layouts.run import Run


def rows(find, root, **known):
    """Give (label, step, kind, path below root, what blocks it) of each checkpoint that a layout finds."""
    return [(c.label, c.step, c.kind, str(c.path.relative_to(root)), c.code) for c in find(Run(root, **known))]
