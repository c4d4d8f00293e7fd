from __future__ import annotations

from matplotlib.figure import Figure

from opd_diag.report.panel import Panel


def test_a_panel_is_a_file_and_an_element_that_says_what_it_shows():
    ax = Figure().add_subplot()
    ax.plot([0, 1], [2, 3])
    panel = Panel.of("a-line", "A <line>", "reverse_kl", "It rises.", ax)
    assert panel.svg.startswith("<?xml")
    assert panel.inline.startswith("<svg")
    assert 'aria-label="A &lt;line&gt;. It rises."' in panel.inline
    assert "<?xml" not in panel.inline
