"""The benchmarks measure the same computation on both sides, and can tell when they do not."""

import json

import jax
import numpy as np
import pytest

from benchmarks import step
from jaxtrain import models


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_step_is_the_program_written_by_hand(name):
    made = step.programs(step.MODELS[name])
    found = {program: step.first_losses(run)[1] for program, run in made.items()}
    for program, losses in found.items():
        np.testing.assert_allclose(losses, found["raw"], rtol=step.TOLERANCE, err_msg=program)
    # The gradients show in the losses: 2 % of what they change is more than is tolerated.
    assert 0.02 * (1 - found["raw"][-1] / found["raw"][0]) > step.TOLERANCE
    for suffix in "", ", 2 devices":
        ratios = step.cost_ratios(made["ours" + suffix], made["raw" + suffix])
        # Deterministic counts; a pass more over the parameters is 6 % of the perceptron's bytes.
        assert ratios == pytest.approx({"flops": 1, "bytes accessed": 1}, abs=0.02), suffix


def test_other_losses_are_refused():
    other = step.MODELS["mlp"]._replace(net=models.mlp([512, 512, 10], activation=jax.numpy.tanh))
    with pytest.raises(RuntimeError, match=r"must be raw's .* 'ours, 2 devices'"):
        step.measure(other, 1, "float32")


def test_main_writes_the_results(tmp_path, monkeypatch):
    mlp = step.MODELS["mlp"]
    monkeypatch.setattr(step, "MODELS", {})
    step.main(quick=True, save=tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    monkeypatch.setattr(step, "MODELS", {"mlp": mlp})
    step.main(rounds=2, save=tmp_path / "step.json")
    results = json.loads((tmp_path / "step.json").read_text())
    assert results["rounds"] == 2 and results["environment"]["versions"]["jax"] == jax.__version__
    low, middle, high = results["mlp"]["ratio"]["ours / raw"]
    assert 0 < low <= middle <= high
    assert results["dispatch"]["microseconds"].keys() == {"ours", "raw"}


@pytest.mark.fast
def test_rounds_alternate_and_thread_the_state():
    calls = []

    def program(name):
        def run(ts, batch):
            calls.append((name, ts))
            return ts + batch, {}

        return step.Program(run, 0, 1, loss=None)

    seconds = step.interleave({"a": program("a"), "b": program("b")}, steps=2, rounds=2)
    assert "".join(name for name, _ in calls) == "aabbbbaa"
    assert [ts for name, ts in calls if name == "a"] == [0, 1, 2, 3]
    assert all(values.shape == (2,) for values in seconds.values())
