"""The gallery of schedules: its verdicts, and what they see."""

import jax.numpy as jnp
import pytest

pytest.importorskip("matplotlib")

from experiments import schedule_gallery as gallery  # noqa: E402
from jaxtrain import schedules  # noqa: E402


def test_the_gallery_in_smoke_size():
    result = gallery.run(gallery.SIZES["smoke"])
    assert list(result.claims.values()) == ["true", "true"]
    assert len(result.figure.axes) == len(gallery.gallery(200)) == 20
    assert result.numbers["growth of sum eta^2, one over t"] == pytest.approx(0.5, rel=1e-3)


def shifted(make):
    """The same schedule, an update late."""

    def wrong(*args, **named):
        schedule = make(*args, **named)
        return lambda count: schedule(jnp.maximum(jnp.asarray(count) - 1, 0))

    return wrong


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name, wrong",
    [
        ("cosine", lambda value, *, steps: schedules.polynomial(value, steps=steps, power=1.5)),
        ("inverse_time", lambda value, *, rate: schedules.inverse_sqrt(value, rate=rate)),
        ("exponential", lambda value, *, rate: schedules.linear(value, steps=round(4 / rate))),
        ("multi_step", shifted(schedules.multi_step)),
        ("sgdr", shifted(schedules.sgdr)),
        ("one_cycle", shifted(schedules.one_cycle)),
    ],
)
def test_a_wrong_formula_makes_it_false(name, wrong, monkeypatch, x64):
    one_only = schedules.RobbinsMonro(True, False, 2.0, 2.0)
    monkeypatch.setattr(schedules, "check_robbins_monro", lambda schedule: one_only)
    monkeypatch.setattr(gallery, "draw", lambda *args: None)
    monkeypatch.setattr(schedules, name, wrong)
    closed_forms, conditions = gallery.run(gallery.SIZES["smoke"]).claims.values()
    assert closed_forms == "false"
    # And where no schedule meets both conditions, "only these do" is false.
    assert conditions == "false"
