"""Strict dtypes and ranks, eight CPU devices, warnings as errors, a persistent compile cache."""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parent.parent / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of the suite's time is compilation: do not optimize (XLA_FLAGS= runs what users run). One
# process for each core compiles already: to split each program gains nothing more.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)

import jax  # noqa: E402
import pytest  # noqa: E402

from jaxtrain import _compat  # noqa: E402

collect_ignore = ["vectors"]  # the scripts that wrote them, with torch

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MNIST = pathlib.Path(__file__).parent.parent.parent / "shared" / "data" / "mnist"


# Tracing makes many objects that live on; looking through all of them often takes minutes in all.
gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Drops what a module has compiled: otherwise all of it stays in memory to the end."""
    yield
    jax.clear_caches()


# Long ones last would leave one process to wait for the other.
LONG = ["test_resume", "test_processes", "test_notebooks", "test_parallel", "test_benchmarks"]


def pytest_collection_modifyitems(config, items):
    """Puts the longest modules first; leaves the nightly tier out unless it is asked for."""
    order = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
    if "nightly" not in (config.option.markexpr or ""):
        nightly = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]


@pytest.fixture
def mnist_dir():
    """The folder of the real MNIST, where there is one."""
    if not MNIST.is_dir():
        pytest.skip("no MNIST folder beside the checkout")
    return MNIST


@pytest.fixture
def x64():
    """float64 for one test."""
    with _compat.enable_x64(True):
        yield
