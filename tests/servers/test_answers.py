"""What a question must be, and what of it is sent."""

import numpy as np
import pytest

from opd_diag.servers import Question

IDS = (5, 6, 7, 8)


def test_rows_and_what_is_sent():
    assert (Question(IDS, 2, 3).rows, Question(IDS, 2, 3).sent) == (2, IDS)
    assert (Question(IDS, 2, 3, after=True).rows, Question(IDS, 2, 3, after=True).sent) == (3, (5, 6, 7, 8, 8))
    assert Question(IDS, 4, 3).rows == 0


@pytest.mark.parametrize("start", [0, 5])
def test_a_start_outside(start):
    with pytest.raises(ValueError, match=f"^start must lie in 1 to 4, the number of ids, got {start}$"):
        Question(IDS, start, 3)


@pytest.mark.parametrize("top", [0, -2])
def test_no_row_of_so_many(top):
    with pytest.raises(ValueError, match=f"^top must be at least 1, or -1 for all, got {top}$"):
        Question(IDS, 1, top)


def test_ids_of_another_shape():
    with pytest.raises(ValueError, match=r"^at must have the shape \(2, m\), got \(3, 4\)$"):
        Question(IDS, 2, 3, at=np.zeros((3, 4), np.int64))
