"""What trainers leave on disk, found and classified by names and small text files; nothing here loads a tensor.

====================  ==================================================================================
`checkpoints.py`      ``find_checkpoints``, ``select_checkpoints``, ``step_zero``: read this first
`layouts.py`          one function per way trainers lay out a run: run folder in, checkpoints out
`weights.py`          ``classify_weights``: what one folder holds, and what blocks loading it
`integrity.py`        whether a safetensors file is whole, from its header
`fingerprint.py`      the key of a checkpoint: its whole content
`contents.py`         digests of what one file holds, tensor by tensor
`digests.py`          digests remembered, so that a file is read once
`manifest.py`         ``read_manifest``: ``opd-diag.toml`` in the run folder
`inspection.py`       what ``opd-diag inspect`` shows
====================  ==================================================================================

A new layout is one function in `layouts.py` and one line in its ``LAYOUTS``.
"""

from opd_diag.runs.checkpoints import find_checkpoints, select_checkpoints, step_zero
from opd_diag.runs.fingerprint import fingerprint
from opd_diag.runs.inspection import InspectionRow, NamedInput, inspection_rows, named_inputs
from opd_diag.runs.layouts import skipped_folders
from opd_diag.runs.manifest import MANIFEST_NAME, Manifest, read_manifest
from opd_diag.runs.weights import Weights, classify_weights, is_local

__all__ = [
    "MANIFEST_NAME",
    "InspectionRow",
    "Manifest",
    "NamedInput",
    "Weights",
    "classify_weights",
    "find_checkpoints",
    "fingerprint",
    "inspection_rows",
    "is_local",
    "named_inputs",
    "read_manifest",
    "select_checkpoints",
    "skipped_folders",
    "step_zero",
]
