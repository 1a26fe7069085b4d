"""The experiments' common shape, their command line and table, and what each one's verdict sees."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import nn
from jaxtrain.errors import ConfigError

pytest.importorskip("tyro")
matplotlib = pytest.importorskip("matplotlib.figure")

from experiments import __main__ as command  # noqa: E402
from experiments import _experiment  # noqa: E402
from experiments import batch_norm_gradients as gradients  # noqa: E402

FOUND = _experiment.found()


def test_experiments_are_found_by_listing_the_folder():
    assert FOUND["batch_norm_gradients"] is gradients
    assert not {"train", "_experiment", "__main__"} & set(FOUND)


@pytest.mark.fast
@pytest.mark.parametrize("name", FOUND)
def test_an_experiment_has_the_common_shape(name):
    module = FOUND[name]
    assert list(module.SIZES) == ["smoke", "default", "full"]
    for config in module.SIZES.values():
        assert type(config) is module.Config
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, dataclasses.fields(config)[0].name, None)
    assert _experiment.question(module).endswith("?")


@pytest.mark.parametrize("name", FOUND)
def test_the_committed_results_are_those_of_the_code(name):
    record = json.loads((_experiment.RESULTS / f"{name}.json").read_text())
    configs = [FOUND[name].SIZES[size] for size in ("default", "full")]
    assert record["config"] in [json.loads(json.dumps(dataclasses.asdict(c))) for c in configs]
    assert record["claims"] and set(record["claims"].values()) <= set(_experiment.VERDICTS)
    figure = (_experiment.RESULTS / record["figure"]).read_bytes()
    assert figure.startswith(b"\x89PNG")


def test_the_table_in_the_readme_is_up_to_date():
    text = _experiment.README.read_text()
    assert all(text.count(mark) == 1 for mark in _experiment.MARKS)
    assert _experiment.with_table(text) == text, "run python -m experiments table"
    assert all(f"](experiments/{name}.py)" in text for name in FOUND)
    assert _experiment.REPORT.read_text() == _experiment.report(), "run python -m experiments table"


def test_only_smoke_leaves_the_committed_results_alone(monkeypatch, tmp_path, capsys):
    def run(config):
        figure = matplotlib.Figure()
        claims = {"It is so.": "true", "|It| is not.": "false"}
        return _experiment.Result(claims, {"size": config.size}, figure)

    @dataclasses.dataclass(frozen=True)
    class Config:
        size: int

    class module:
        """Is it so?"""

        SIZES = {"smoke": Config(1), "default": Config(2), "full": Config(3)}

    module.run = staticmethod(run)
    monkeypatch.setattr(_experiment, "found", lambda: {"one": module})
    monkeypatch.setattr(_experiment, "RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    command.main(["run", "one", "--size", "smoke"])
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["one.json", "one.png"]
    assert not (tmp_path / "results").exists()
    assert "true: It is so.\nfalse: |It| is not.\n  size 1\n" in capsys.readouterr().out
    for arguments, size in ((["run", "one"], 2), (["run", "one", "--size", "full"], 3)):
        command.main(arguments)
        record = json.loads((tmp_path / "results" / "one.json").read_text())
        assert record["numbers"] == {"size": size} and record["config"] == {"size": size}
        assert record["claims"] == {"It is so.": "true", "|It| is not.": "false"}
        assert record["seconds"] < 60
    (row,) = _experiment.table().splitlines()[2:]
    assert row.startswith("| [Is it so?](experiments/one.py) | 1 true, 1 false | [figure](")
    page = _experiment.report()
    assert "## Is it so?\n" in page and "| It is so. | true |\n| \\|It\\| is not. | false |" in page


def test_list_shows_name_sizes_and_question(capsys):
    command.main(["list"])
    shown = capsys.readouterr().out
    for name, module in FOUND.items():
        assert f"{name} (smoke, default, full)\n  {_experiment.question(module)}\n" in shown


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["batch_norm"], "run: name must be one of .*did you mean 'batch_norm_noise'"),
        (["batch_norm_gradients", "--size", "big"], "run: size must be one of .*'smoke'"),
    ],
)
def test_an_unknown_name_or_size_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["run", *arguments])
    assert left.value.code == 64
    assert re.match(message, capsys.readouterr().err)


@pytest.mark.fast
def test_a_claim_has_one_of_three_verdicts():
    with pytest.raises(ConfigError, match="Result: claims must be one of"):
        _experiment.Result({"It is so.": "true", "It is not.": "no"}, {}, None)


@pytest.mark.fast
@pytest.mark.parametrize(
    "holds, verdict",
    [(True, "true"), (False, "false"), ([True, True], "true"), ([[True], [False]], "depends")],
)
def test_the_truth_of_cases(holds, verdict):
    assert _experiment.truth(holds) == verdict


# Claim: the sums of BatchNorm's gradients are zero.


@pytest.mark.fast
@pytest.mark.parametrize(
    "exact, in_use, without, verdict",
    [
        (1e-15, 1e-15, 0.5, "true"),
        (1e-15, 1e-5, 0.5, "depends"),
        (1e-9, 1e-5, 0.5, "false"),
        (1e-15, 1e-15, 1e-12, "false"),  # zero without BatchNorm too: it shows nothing
    ],
)
def test_the_verdict_on_batch_norm_gradients(exact, in_use, without, verdict):
    worst = (exact, in_use, 1e-7, without)
    measured = {
        case: {4: np.array([[value, value], [value / 2, value]])}
        for case, value in zip(gradients.CASES, worst, strict=True)
    }
    assert gradients.verdict(measured) == verdict
    # One bad sum among many decides.
    measured["float64, eps -> 0"][8] = np.array([[1e-16, 2e-10]])
    assert gradients.verdict(measured) == "false"


def test_batch_norm_gradients_in_smoke_size():
    result = gradients.run(gradients.SIZES["smoke"])
    assert list(result.claims.values()) == ["depends"]
    small = {what: value < gradients.LIMIT for what, value in result.numbers.items()}
    # eps leaves the first sum alone and spoils the second.
    assert small["largest sum g, float64, eps 1e-5"]
    assert not small["largest sum u g, float64, eps 1e-5"]


def test_a_batch_norm_without_gradients_of_its_statistics_is_found_out(x64, monkeypatch):
    from jaxtrain.nn import _norm

    moments = _norm.moments
    monkeypatch.setattr(_norm, "moments", lambda x, ctx: jax.lax.stop_gradient(moments(x, ctx)))
    net = gradients.tapped(nn.serial(nn.batch_norm(), nn.dense(3)), 1e-30)
    x = jax.random.normal(jax.random.key(0), (16, 4), jnp.float64)
    args = (*net.init(jax.random.key(1), x), x, jnp.arange(16) % 3)
    loss = gradients.mean_cross_entropy
    assert gradients.relative_sums(net, loss, *args).min() > gradients.LIMIT
    monkeypatch.setattr(_norm, "moments", moments)
    assert gradients.relative_sums(net, loss, *args).max() < gradients.LIMIT


def test_what_eps_leaves_of_the_weighted_sum(x64):
    """The formula in the experiment's docstring, by NumPy's finite differences of L in u."""
    eps, n = 0.1, 6
    net = gradients.tapped(nn.serial(nn.batch_norm(), jnp.tanh, nn.dense(2)), eps)
    x = jax.random.normal(jax.random.key(0), (n, 1), jnp.float64)
    params, state = net.init(jax.random.key(1), x)
    probes = jnp.zeros((n, 1), jnp.float64)
    loss = gradients.mean_squared_error
    labels = jnp.arange(n) % 2

    def at(probe):
        nested = params | {"batch_norm0": params["batch_norm0"] | {"y": {"probe": probe}}}
        y, _ = net.apply(nested, state, x, nn.Context(train=True))
        return loss(y, labels)

    g = np.asarray(jax.grad(at)(probes))[:, 0]
    y = np.asarray(x)[:, 0]
    s = np.sqrt(y.var() + eps)
    u = (y - y.mean()) / s
    kernel, bias = (np.asarray(params["dense0"][name]) for name in ("kernel", "bias"))

    def of_u(u):
        outputs = np.tanh(u)[:, None] @ kernel + bias
        return ((outputs - np.eye(2)[np.asarray(labels)]) ** 2).mean(-1).mean()

    h = 1e-5
    du = [(of_u(u + h * e) - of_u(u - h * e)) / (2 * h) for e in np.eye(n)]
    # Central differences: h^2 = 1e-10 times a third derivative of order 1.
    np.testing.assert_allclose((u * g).sum(), eps / s**3 * (u * du).sum(), rtol=1e-7)
    np.testing.assert_allclose(g.sum(), 0, atol=1e-15)
