"""The file of a second pass holds what was put into it, and says when it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opd_diag.errors import StoreError
from opd_diag.records import fits
from opd_diag.records.arrays import save_arrays
from opd_diag.records.fits import FIT_FIELDS, TEMPERATURES, Fits


def some():
    random = np.random.default_rng(0)
    return Fits(
        prompt_index=np.array([0, 0, 4]),
        rollout_index=np.array([1, 1, 0]),
        position=np.array([2, 7, 0]),
        tempered_reverse_kl=random.random((3, 17)),
        tempered_slope=random.random((3, 17)) - 0.5,
        has_gradient=np.array([True, False, True]),
        prompts=np.array([0, 4]),
        gradient_products=random.random((2, 2)),
        gradient_squared_norms=random.random(2),
        least_squared_norms=np.array([np.nan, 1e-9]),
        about={"label": "step 3", "step": 3, "states": "start"},
    )


def test_temperatures_are_four_an_octave_around_one():
    assert (TEMPERATURES[0], TEMPERATURES[8], TEMPERATURES[-1]) == (0.25, 1.0, 4.0)
    assert np.diff(np.log2(TEMPERATURES)) == pytest.approx(np.full(16, 0.25))


def test_it_is_read_as_it_was_written(tmp_path):
    made = some()
    made.save(tmp_path / "fits.safetensors")
    found = Fits.load(tmp_path / "fits.safetensors")
    for name in FIT_FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        assert getattr(found, name).dtype == getattr(made, name).dtype
    assert (found.label, found.states, found.about["step"], len(found)) == ("step 3", "start", 3, 3)


def test_equal_fits_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        some().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    replace(some(), position=np.array([2, 7, 1])).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_another_version_is_refused(tmp_path, monkeypatch):
    some().save(tmp_path / "fits.safetensors")
    monkeypatch.setattr(fits, "FITS_VERSION", fits.FITS_VERSION + 1)
    with pytest.raises(StoreError, match=r"has fits version 1, this opd-diag reads 2\. Delete the file and run"):
        Fits.load(tmp_path / "fits.safetensors")


def test_a_file_that_lacks_a_field_is_refused(tmp_path):
    save_arrays(tmp_path / "fits.safetensors", {"prompts": np.arange(3)}, {"fits_version": fits.FITS_VERSION})
    with pytest.raises(StoreError, match="lacks 'prompt_index'"):
        Fits.load(tmp_path / "fits.safetensors")
    with pytest.raises(StoreError, match="no readable file"):
        Fits.load(tmp_path / "nothing")
