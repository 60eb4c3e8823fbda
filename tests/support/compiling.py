"""How XLA compiles in the tests: quickly by default, as users compile where a test asks for it.

Most of the time of the tests is XLA compiling small programs, and its quickest code generator takes a sixth of it.
It rounds a * b + c twice where the full one fuses it. What users run is compiled in full by the command line, the
notebooks, the benchmarks, and the tests of the commands.
"""

import functools
from importlib import metadata
from typing import Any

HAS_FLAGS = metadata.version("jaxlib").startswith("0.10.")  # a flag that XLA does not know ends the process

QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if HAS_FLAGS:
    QUICKLY += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

AS_USERS_DO: dict[str, Any] = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if HAS_FLAGS:
    AS_USERS_DO |= {"xla_cpu_use_fusion_emitters": True, "xla_cpu_parallel_codegen_split_count": 32}
AS_GOLDEN: dict[str, Any] = {"xla_cpu_parallel_codegen_split_count": 32} if HAS_FLAGS else {}


def share_context() -> None:
    """One MLIR context for all programs of the process: each of its own takes 5 ms and about a megabyte that stays.

    Private to JAX: where it has moved, the tests only take longer.
    """
    from jax._src.interpreters import mlir

    if make := getattr(mlir, "make_ir_context", None):
        mlir.make_ir_context = functools.cache(make)


def devices(n: int) -> str:
    """XLA_FLAGS of a process with n simulated devices."""
    return f"{QUICKLY} --xla_force_host_platform_device_count={n}"
