"""The tables: every entry can be reached, and says what it must."""

import pytest

from opd_diag.runs.logged.entries import ENTRIES, Entry
from opd_diag.runs.logged.trainers import TRAINERS

NAMES = [f"{entry.trainer} {entry.key}" for entry in ENTRIES]


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_an_entry_is_whole(entry):
    assert entry.factor in (1.0, -1.0)
    assert entry.metric or entry.note, "what is no metric of ours says why"
    assert (entry.factor == -1.0) == entry.note.startswith("Opposite sign: "), "a sign that is turned is said"
    assert not entry.note or (entry.note[0].isupper() and entry.note.endswith("."))


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_an_entry_belongs_to_a_trainer(entry):
    assert entry.trainer in {name for trainer in TRAINERS for name in (trainer.name, *trainer.aliases)}


def test_no_entry_hides_another():
    """Of several for one name only the last may hold whatever the log says."""
    for i, entry in enumerate(ENTRIES):
        later = [other for other in ENTRIES[i + 1 :] if (other.trainer, other.key) == (entry.trainer, entry.key)]
        assert not later or entry.beside or entry.without or entry.options


def test_what_an_entry_asks_of_a_log():
    entry = Entry("verl", "loss", "reverse_kl", beside="mass", without="pg_", options={"beta": 1.0})
    assert entry.holds(["loss", "mass_min"], {"beta": 1.0})
    assert not entry.holds(["loss"], {"beta": 1.0})
    assert not entry.holds(["loss", "mass", "pg_loss"], {"beta": 1.0})
    assert not entry.holds(["loss", "mass"], {"beta": 0.5})
    assert not entry.holds(["loss", "mass"], {})
