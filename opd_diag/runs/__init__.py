"""What trainers leave on disk, found and classified by names and small text files; nothing here loads a model.

====================  ==================================================================================
`discovery.py`        ``find_run``: from a folder to the run in it; read this first
`checkpoints.py`      ``find_checkpoints``, ``select_checkpoints``, ``step_zero``
`layouts/`            one function per way trainers lay out a run: folder in, checkpoints out
`found.py`            the run in one folder, as the first layout that fits has it
`nesting.py`          the run around one checkpoint, runs in the folders of a folder
`notes.py`            what the whole of a run tells: pointer files, empty folders, caveats
`refusals.py`         why a folder is no run, and what to do
`weights.py`          ``classify_weights``: what one folder holds, and what blocks loading it
`holdings.py`         that, as a record; where a config comes from
`huggingface.py`      full weights and adapters
`sharded.py`          what trainers write for themselves
`disk.py`             names, small text files and sizes, each asked for once
`integrity.py`        whether a safetensors file is whole, from its header
`fingerprint.py`      the key of a checkpoint: its whole content
`contents.py`         digests of what one file holds, tensor by tensor
`digests.py`          digests remembered, so that a file is read once
`unpickling.py`       whether this torch reads pickled tensors safely
`shapes.py`           whether two folders can hold steps of one training
`manifest.py`         ``read_manifest``: ``opd-diag.toml`` in the run folder
`inspection.py`       what ``opd-diag inspect`` shows
`recorded/`           rollouts that the trainer recorded
`logged/`             what the trainer logged
====================  ==================================================================================

A new layout is one function in a module of `layouts/` and one line in its ``LAYOUTS``.
"""

from opd_diag.runs.checkpoints import find_checkpoints, select_checkpoints, step_zero
from opd_diag.runs.discovery import find_run
from opd_diag.runs.fingerprint import fingerprint
from opd_diag.runs.found import FoundRun
from opd_diag.runs.holdings import Weights, is_local
from opd_diag.runs.inspection import InspectionRow, NamedInput, inspection_rows, named_inputs
from opd_diag.runs.layouts import LAYOUT_NAMES
from opd_diag.runs.manifest import MANIFEST_NAME, Manifest, read_manifest
from opd_diag.runs.weights import classify_weights

__all__ = [
    "LAYOUT_NAMES",
    "MANIFEST_NAME",
    "FoundRun",
    "InspectionRow",
    "Manifest",
    "NamedInput",
    "Weights",
    "classify_weights",
    "find_checkpoints",
    "find_run",
    "fingerprint",
    "inspection_rows",
    "is_local",
    "named_inputs",
    "read_manifest",
    "select_checkpoints",
    "step_zero",
]
