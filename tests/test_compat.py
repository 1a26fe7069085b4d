"""The version differences: each is tested alike in every supported environment."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxtrain import _compat

pytestmark = pytest.mark.fast


def data():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 3)), random.normal(size=16)
    return {"w": random.normal(size=3), "b": np.float64(0.5)}, x, y


def local_gradient(params, x, y):
    """The gradient of this device's part of sum((x w + b - y)^2) / 2, summed over the axis."""

    def loss(p):
        return 0.5 * jnp.sum((x @ p["w"] + p["b"] - y) ** 2)

    # Twice: a value that already varies must pass.
    varying = _compat.to_varying(_compat.to_varying(params, "data"), "data")
    return jax.lax.psum(jax.grad(loss)(varying), "data")


def mapped(how, n):
    devices = jax.devices()[:n]
    if how in ("checked", "unchecked"):
        mesh, specs = _compat.make_mesh(devices, ("data",)), (P(), P("data"), P("data"))
        return jax.shard_map(
            local_gradient, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=how == "checked"
        )
    axes = dict(axis_name="data", in_axes=(None, 0, 0), out_axes=None)
    if how == "pmap":
        f = jax.pmap(local_gradient, devices=devices, **axes)
    else:
        f = jax.vmap(local_gradient, **axes)
    return lambda p, *batch: f(p, *(a.reshape(n, -1, *a.shape[1:]) for a in batch))


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("how", ["checked", "unchecked", "pmap", "vmap"])
def test_summed_gradient_is_the_gradient_of_the_whole_batch(how, n):
    params, x, y = data()
    residual = x @ params["w"] + params["b"] - y
    with _compat.enable_x64(True):
        got = mapped(how, n)(jax.tree.map(jnp.asarray, params), jnp.asarray(x), jnp.asarray(y))
    # Sums of 16 terms whose sizes add up to about the largest sum: another order, and 8 partial
    # sums, change it by at most 16 * 2.2e-16 = 4e-15 of itself.
    want = {"w": x.T @ residual, "b": residual.sum()}
    largest = np.abs(want["w"]).max()
    for name in want:
        assert got[name].dtype == np.float64
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-14 * largest)


def test_to_varying_keeps_values_and_dtypes():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "n": jnp.int32(3), "hole": None}
    mesh = _compat.make_mesh(jax.devices()[:2], ("data",))
    out = jax.shard_map(
        lambda t: jax.tree.map(lambda x: x[None], _compat.to_varying(t, "data")),
        mesh=mesh,
        in_specs=P(),
        out_specs=P("data"),  # two rows, one from each device
    )(tree)
    assert out["a"].dtype == jnp.bfloat16 and out["a"].shape == (2, 2)
    assert out["n"].dtype == jnp.int32 and out["n"].tolist() == [3, 3]


def test_outside_any_axis_the_tree_comes_back_as_it_is():
    tree = {"a": jnp.ones(2)}
    assert _compat.to_varying(tree, None) is tree
    assert _compat.to_varying(tree, "data") is tree


def test_axis_size_is_a_python_int():
    sizes = []
    mesh = _compat.make_mesh(jax.devices(), ("data",))
    f = lambda x: sizes.append(jax.lax.axis_size("data")) or x  # noqa: E731
    jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data"))(jnp.arange(8))
    jax.pmap(f, "data")(jnp.arange(8))
    assert sizes == [8, 8] and all(type(n) is int for n in sizes)


def test_mesh_axes_are_auto():
    mesh = _compat.make_mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    assert mesh.axis_names == ("data", "model") and mesh.devices.shape == (4, 2)
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_enable_x64_ends_with_its_block():
    with _compat.enable_x64(True):
        assert jnp.ones(()).dtype == jnp.float64
    assert jnp.ones(()).dtype == jnp.float32


def test_set_cpu_devices_in_a_new_process():
    code = """
import jax
from jaxtrain._compat import set_cpu_devices
print(set_cpu_devices(2), set_cpu_devices(3), len(jax.devices()), set_cpu_devices(4))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["True", "True", "3", "False"]
