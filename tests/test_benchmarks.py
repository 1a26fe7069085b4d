"""The benchmarks measure the same computation on both sides, and can tell when they do not."""

import functools
import json

import jax
import numpy as np
import pytest

from benchmarks import _peers, augment, layers, memory, optimizer, step
from jaxtrain import models, nn, optim


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.nightly)])
def test_step_is_the_program_written_by_hand(name):
    made = step.programs(step.MODELS[name])
    found = {program: step.first_losses(run)[1] for program, run in made.items()}
    for program, losses in found.items():
        np.testing.assert_allclose(losses, found["raw"], rtol=step.TOLERANCE, err_msg=program)
    # The gradients show in the losses: 2 % of what they change is more than is tolerated.
    assert 0.02 * (1 - found["raw"][-1] / found["raw"][0]) > step.TOLERANCE
    for suffix in "", ", 2 devices":
        ratios = step.cost_ratios(made["ours" + suffix], made["raw" + suffix])
        assert ratios.pop("bytes of temporaries") <= 1.05, suffix
        # Deterministic counts; a pass more over the parameters is 6 % of the perceptron's bytes.
        assert ratios == pytest.approx({"flops": 1, "bytes accessed": 1}, abs=0.02), suffix


@pytest.mark.nightly
def test_the_residual_networks_are_the_same():
    small = step.MODELS["resnet20"]._replace(
        net=models.resnet(8),
        linen=functools.partial(_peers.ResNet, blocks=1),
        torch=functools.partial(_peers.torch_resnet, blocks=1),
        image=(4, 8, 8, 3),
    )
    makers = step.makers(small)
    made = {name: makers[name]() for name in makers if "devices" not in name}
    step.checked(made, "raw", step.TOLERANCE)
    assert step.cost_ratios(made["ours"], made["raw"])["bytes of temporaries"] <= 1.05


@pytest.mark.nightly
def test_other_losses_are_refused():
    other = step.MODELS["mlp"]._replace(net=models.mlp([512, 512, 10], activation=jax.numpy.tanh))
    with pytest.raises(RuntimeError, match=r"must be raw's .* 'ours, 2 devices'"):
        step.measure(other, 1, "float32")


@pytest.mark.nightly
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


@pytest.mark.nightly
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


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(layers, "BATCH", 4)
    monkeypatch.setattr(layers, "SHAPES", ((4, 2, 8),))
    monkeypatch.setattr(layers, "SIZES", ((8, 4),))


@pytest.mark.nightly
def test_layers_are_the_same_by_all(small):
    for case in layers.cases().values():
        made = layers.programs(case, backward=True)
        assert {"ours", "raw", "flax linen"} <= made.keys()
        # Sums of 64 products: a few units in the last place.
        assert max(layers.differences(case, made).values()) < 3e-6


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("batch_norm 4x4x8", nn.batch_norm(eps=2e-3)),
        ("layer_norm 16x8", nn.layer_norm(per="example")),
        ("max_pool 4x4x8", nn.avg_pool(2)),
    ],
)
def test_another_layer_is_refused(small, name, other):
    case = layers.cases()[name]
    others = {"other": other.apply}
    made = layers.programs(case._replace(others=others), backward=True)
    with pytest.raises(RuntimeError, match="got {'other': "):
        layers.differences(case, made)


def test_a_choice_undone_in_the_step_is_another_program_of_the_same_losses(small):
    model = step.MODELS["cnn"]._replace(image=(4, 8, 8, 1))
    weights = model.net.init(jax.random.key(0), batch := step.make_batch(model.image)["image"])
    ctx = nn.Context(True, mask=np.ones(len(batch), np.float32))
    apply = lambda net: jax.make_jaxpr(net.apply)(*weights, batch, ctx)  # noqa: E731
    ours = str(apply(model.net))
    for kind, other in layers.CHOICES.values():
        net = layers.exchanged(model.net, kind, other)
        assert str(apply(net)) != ours
        jax.eval_shape(net.init, jax.random.key(0), batch)


def test_layers_writes_the_results(small, tmp_path):
    file = tmp_path / "layers.json"
    layers.main(rounds=2, only=("max_pool",), quick=True, save=file)
    assert not file.exists()
    layers.main(rounds=2, only=("max_pool",), save=file)
    results = json.loads(file.read_text())
    low, middle, high = results["max_pool 4x4x8"]["forward, ours / theirs"]["reduce_window"]
    assert 0 < low <= middle <= high and results["rounds"] == 2


@pytest.mark.nightly
def test_augment_writes_the_results(tmp_path, monkeypatch, as_elsewhere):
    file = tmp_path / "augment.json"
    monkeypatch.setattr(augment, "SHAPE", (16, 12, 10, 3))
    monkeypatch.setattr(augment, "EXAMPLES", 64)
    kept = {name: augment.OURS[name] for name in ("flip", "equalize", "trivial_augment")}
    monkeypatch.setattr(augment, "OURS", kept)
    monkeypatch.setattr(augment, "POLICIES", {"trivial_augment": kept["trivial_augment"]})
    augment.main(rounds=2, only=("each", "pipeline"), save=file)
    results = json.loads(file.read_text())
    assert {"ours", "numpy"} <= results["equalize"]["ns/pixel"].keys()
    assert "lax.switch" in results["trivial_augment"]["ours / theirs"]
    low, middle, high = results["pipeline"]["examples/s"]["ours"]
    assert 0 < low <= middle <= high


def test_memory_is_that_of_the_step(monkeypatch):
    monkeypatch.setattr(memory, "fresh", lambda model, name: {"raw": 2.0}.get(name, 3.0))
    found = memory.measure("mlp", rounds=3)
    assert found["ratio"]["ours / raw"] == [1.5, 1.5, 1.5]
    assert not any("devices" in name for name in found["MiB over imports"])


@pytest.mark.fast
def test_the_largest_size_never_falls():
    before = memory.largest()
    held = np.ones(2**24)
    after = memory.largest()
    assert after >= before > 1 and after - before <= held.nbytes / 2**20 + 32
    del held
    assert memory.largest() >= after - 4  # the kernel counts each thread's pages in batches
