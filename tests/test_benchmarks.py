"""The benchmarks measure the same computation on both sides, and can tell when they do not."""

import json

import jax
import numpy as np
import pytest

from benchmarks import optimizer, step
from jaxtrain import models, optim


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


@pytest.fixture
def as_elsewhere():
    """Types promote as they do by default, for optax."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_optimizers_that_should_be_the_same_make_the_same_updates(as_elsewhere):
    for case in optimizer.CASES.values():
        if case.same:
            optimizer.programs(case._replace(torch=None), size=8, leaves=1)
    other = optimizer.CASES["adam"]._replace(ours=optim.adam(optimizer.RATE, bias_correction=False))
    with pytest.raises(RuntimeError, match="updates must be equal"):
        optimizer.programs(other, size=8, leaves=1)


def test_optimizer_writes_the_results(tmp_path, monkeypatch, as_elsewhere):
    file = tmp_path / "optimizer.json"
    monkeypatch.setattr(optimizer, "LEAVES", (1, 2))
    optimizer.main(rounds=2, size=2000, only=("adam",), quick=True, save=file)
    assert not file.exists()
    optimizer.main(rounds=2, size=2000, only=("adam",), save=file)
    results = json.loads(file.read_text())
    titles = [f"adam, {size}M in {leaves}" for size in (0.002, 0.01) for leaves in (1, 2)]
    assert [name for name in results if " in " in name] == titles
    low, middle, high = results[titles[0]]["ratio"]["ours / optax"]
    assert 0 < low <= middle <= high
