"""Sums over devices and their derivatives, as a line search or a Hessian takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from training import distance

from jaxtrain import _compat, train

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 3)), RNG.normal(size=16)
W = {"kernel": np.array([0.3, -0.2, 0.5]), "bias": np.array(0.1)}


def local(x, y):
    return lambda w: ((jnp.tanh(x @ w["kernel"] + w["bias"]) - y) ** 2).sum() / len(X)


def derivatives(f):
    """Value, gradient, and Hessians: of f, and of a function of f, where cotangents vary."""
    w = jax.tree.map(jnp.asarray, W)
    twice = [jax.jacrev(jax.jacrev(g))(w) for g in (f, lambda w: jnp.sqrt(1 + f(w)))]
    return f(w), jax.grad(f)(w), twice


def on_devices(how, make=train.global_sum):
    def device(x, y):
        return derivatives(make(local(x, y), "data"))

    if how == "pmap":
        parts = X.reshape(8, 2, 3), Y.reshape(8, 2)
        return jax.pmap(device, axis_name="data", out_axes=None)(*parts)
    mesh = _compat.make_mesh(jax.devices(), ("data",))
    specs = {"in_specs": (P("data"), P("data")), "out_specs": P()}
    check_vma = how == "shard_map, checked"
    return jax.jit(jax.shard_map(device, mesh=mesh, check_vma=check_vma, **specs))(X, Y)


@pytest.mark.parametrize("how", ["pmap", "shard_map", "shard_map, checked"])
def test_derivatives_are_those_of_one_device(x64, how):
    # Sums of 16 terms in another order.
    assert distance(on_devices(how), derivatives(local(X, Y))) < 1e-14


def test_a_plain_sum_has_other_derivatives(x64):
    def plain(f, axis_name):
        return lambda w: jax.lax.psum(f(w), axis_name)

    assert distance(on_devices("pmap", plain), derivatives(local(X, Y))) > 0.1


def test_without_an_axis_it_is_the_function_itself():
    f = local(X, Y)
    assert train.global_sum(f, None) is f


def test_forward_mode_is_refused():
    f = train.global_sum(lambda w: w, "data")
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.vmap(lambda w: jax.jvp(f, (w,), (w,)), axis_name="data")(jnp.ones(2))
