"""What is known of a teacher behind a server: what comes back, what it may be asked, what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from models import wrapped

from opd_diag.servers import ALL

from .behind import served


@pytest.fixture(scope="module")
def teacher():
    return wrapped("qwen3", name="big teacher", seed=2)


@pytest.mark.parametrize(
    ("top", "exact_ids", "whole", "asks"),
    [(20, False, False, False), (20, True, False, True), (ALL, False, True, False), (ALL, True, True, False)],
)
def test_ids_are_asked_for_where_a_server_can_be_and_not_all_come_back(teacher, top, exact_ids, whole, asks):
    of = served(teacher, top, exact_ids=exact_ids)
    assert (of.whole, of.asks) == (whole, asks)


@pytest.mark.parametrize(("says", "takes"), [(30, 28), (None, None)])
def test_a_sequence_leaves_room_for_what_engines_add(teacher, says, takes):
    """For the row behind its last token, and for one token that they generate."""
    of = served(teacher)
    of.server.about = replace(of.server.about, context=says)
    assert of.context == takes
