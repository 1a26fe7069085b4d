"""The figure of schedules: what it shows is what the schedules give."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from jaxtrain import plot, schedules  # noqa: E402
from jaxtrain.errors import ConfigError  # noqa: E402


def test_one_schedule():
    figure = plot.schedule(schedules.step_decay(0.1, every=3, factor=0.1), 10, log=True, title="!")
    (axes,) = figure.axes
    (line,) = axes.lines
    assert line.get_xdata().tolist() == list(range(11))
    np.testing.assert_allclose(line.get_ydata(), 0.1 * 0.1 ** (np.arange(11) // 3), rtol=1e-6)
    assert axes.get_yscale() == "log" and axes.get_title() == "!" and axes.get_legend() is None


def test_several_by_name_and_at_any_length():
    named = {name: schedules.cosine(0.1, steps=10**k) for k, name in enumerate("abc", 7)}
    (axes,) = plot.schedule(named, 10**9).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c"]
    for k, line in enumerate(axes.lines, 7):
        x, y = line.get_xdata(), np.asarray(line.get_ydata())
        assert len(x) <= 2000 and x[0] == 0 and x[-1] == 10**9
        # On an even grid of 2000 the last one begins to stay at 10^k.
        np.testing.assert_allclose(y[x >= 10**k], 0, atol=1e-8)
        assert (y[x < 0.9 * 10**k] > 1e-3).all()


def test_bad_arguments():
    with pytest.raises(ConfigError, match="schedule: steps must be an int >= 1, got 0"):
        plot.schedule(schedules.constant(0.1), 0)
