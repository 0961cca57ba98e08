from __future__ import annotations

import numpy as np
import pytest

from emavos.benchmark import plot


def test_a_plot_shows_each_line_in_its_colour():
    image = plot.lines(
        {"a": [(1, 1), (100, 10)], "b": [(1, 5), (100, 5)]}, "title", "x", "y", size=(400, 300)
    )
    assert image.shape == (300, 400, 3)
    for i in (1, 2):
        assert (image == np.array(plot.colour(i))).all(axis=2).sum() > 100
    with pytest.raises(ValueError, match="only positive points"):
        plot.lines({"a": [(0, 1)]}, "title", "x", "y")
