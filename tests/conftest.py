"""Strict numerics for every test: no silent promotion of dtypes or ranks, and warnings are errors (pyproject)."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

from support import compiling

os.environ.setdefault("XLA_FLAGS", compiling.QUICKLY)

import jax
import jaxtyping
import pytest
from support import reference

compiling.share_context()
CACHE = Path(__file__).parent.parent / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where an operation of a test was written
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write tests/golden anew (needs torch, and -n 0)")
    parser.addoption("--notebooks", action="store_true", help="run every notebook, not the first alone (minutes)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--write-golden"):
        assert reference.HAVE_TORCH, "--write-golden needs torch"
        reference.start_writing()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--write-golden"):
        reference.finish_writing()


def pytest_collection_finish() -> None:
    """What is loaded by now stays, so a collection need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 10)  # no rarer: compiled programs are held by cycles, and each takes memory maps


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(getattr(item, "module", None), "reference", None) is reference.reference:
            item.add_marker(pytest.mark.torch)


@pytest.fixture
def x64():
    """Run the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked():
    """Without beartype, which would refuse a wrong type before the library's own message is reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
