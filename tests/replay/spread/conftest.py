"""A Ray cluster of this machine, whose workers cut as small as this process does."""

from __future__ import annotations

import warnings

import pytest


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine, whose workers cut as small as this process does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        def cut_small():  # of a function within one, the text is sent, and not where it stands
            from opd_diag.inference import packing, sampling, shards

            packing.TOKENS_PER_PACK["cpu"] = 30
            shards.TOKENS_PER_SHARD = 30
            sampling.ROWS_PER_SHARD = 3

        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 2**20,
            runtime_env={"worker_process_setup_hook": cut_small},
        )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def cut_small():
    """Make a few tokens enough for several shards, and let nothing be timed."""
    from opd_diag.inference.pace import Pace
    from opd_diag.inference.packing import TOKENS_PER_PACK

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TOKENS_PER_PACK, "cpu", 30)
        patch.setattr("opd_diag.inference.shards.TOKENS_PER_SHARD", 30)
        patch.setattr("opd_diag.inference.sampling.ROWS_PER_SHARD", 3)
        patch.setattr("opd_diag.replay.cost.measured_pace", lambda *sizes, **how: Pace(0, 0, 0, 0, 0, 0))
        yield


@pytest.fixture
def pools(monkeypatch):
    """The pools that are made, in order."""
    from opd_diag.replay.spread import cluster

    made = []

    class Recorded(cluster.Pool):
        def __init__(self, *how):
            super().__init__(*how)
            made.append(self)

    monkeypatch.setattr(cluster, "Pool", Recorded)
    return made
