from __future__ import annotations

import pytest

from opd_diag.report.wording import count, one_line


@pytest.mark.parametrize("n", [0, 1, 2])
def test_counts(n):
    assert count(n, "state") == f"{n} state{'' if n == 1 else 's'}"


def test_one_line_is_one_line():
    assert one_line(" a \r\n b\u2028c ") == "a b c"
    assert len(one_line("x" * 1000)) == 300
