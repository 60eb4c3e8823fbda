"""`dlkit doctor`: versions, devices, memory, what is missing, and one command for each problem."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from dlkit.version import __version__

__all__ = ["Doctor", "diagnose"]

EXTRAS = {
    "scikit-learn": "sklearn",
    "pydantic": "pydantic",
    "tyro": "tyro",
    "rich": "rich",
    "tensorboardX": "tensorboardX",
    "matplotlib": "matplotlib",
}
# What only some commands and pages need: the package, its module, what for, and the extra that brings it.
OPTIONAL = (
    ("tokenizers", "tokenizers", "the tokenizer.json of language models", "text"),
    ("sympy", "sympy", "formulas of derivatives", "labs"),
)

# What accelerators say when they cannot be had, and the one thing to try.
KNOWN = (
    (
        r"libtpu.*(already in use|lockfile)|/tmp/libtpu_lockfile",
        "another process holds the TPU",
        "sudo lsof -t /dev/accel* /dev/vfio/*  # the process that holds it: end that one",
    ),
    (
        r"CUDA_ERROR_NO_DEVICE|no CUDA-capable device",
        "no GPU is visible to CUDA",
        "unset CUDA_VISIBLE_DEVICES; nvidia-smi",
    ),
    (
        r"cuInit|CUDA_ERROR_(UNKNOWN|NOT_INITIALIZED|SYSTEM_DRIVER_MISMATCH)|driver version is insufficient",
        "the NVIDIA driver and CUDA do not work together",
        "nvidia-smi  # update the driver if it is older than CUDA wants",
    ),
    (
        r"RESOURCE_EXHAUSTED|out of memory|CUDA_ERROR_OUT_OF_MEMORY",
        "the device has no free memory",
        "nvidia-smi --query-compute-apps=pid,used_memory --format=csv  # end what holds it",
    ),
    (
        r"jaxlib version|jaxlib is version|jaxlib .* is (newer|older)|incompatible with jax",
        "jax and jaxlib do not belong together",
        "pip install -U jax jaxlib",
    ),
    (
        r"Unknown backend|Unable to initialize backend",
        "the platform that was asked for is not installed",
        "unset JAX_PLATFORMS",
    ),
    (r"cudnn|CUDNN_STATUS", "cuDNN is missing or does not fit", 'pip install -U "jax[cuda13]"'),
)


def diagnose(text: str) -> tuple[str, str]:
    """What an error message of a device means, and the one command to try first."""
    for pattern, problem, command in KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            return problem, command
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return f"the device does not work: {first[:200]}", "python -c 'import jax; print(jax.devices())'"


@dataclass(frozen=True)
class Doctor:
    """Show versions, devices, memory and missing packages, with one command for each problem."""

    def run(self) -> int:
        facts, problems = examine()
        width = max(len(name) for name, _ in facts)
        lines = [f"{name:<{width}}  {value}" for name, value in facts]
        if problems:
            lines += ["", "problems"]
            for problem, command in problems:
                lines += [f"  {problem}", f"    try: {command}"]
        else:
            lines += ["", "no problem found"]
        print("\n".join(lines))  # noqa: T201
        return 1 if problems else 0


def examine() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The facts as (name, value) pairs, and the problems as (what, command) pairs."""
    problems: list[tuple[str, str]] = []
    facts = [("dlkit", __version__), ("python", f"{platform.python_version()} ({sys.executable})")]
    facts.append(("system", f"{platform.system()} {platform.release()} {platform.machine()}"))
    versions = {name: _version(name) for name in ("jax", "jaxlib", "numpy")}
    facts += [(name, version or "missing") for name, version in versions.items()]
    facts += _devices(problems)
    facts.append(("cores", str(_cores())))
    if memory := _memory():
        facts.append(("memory", f"{memory[0] / 2**30:.1f} GiB, {memory[1] / 2**30:.1f} GiB free"))
    missing = [name for name, module in EXTRAS.items() if importlib.util.find_spec(module) is None]
    absent = [one for one in OPTIONAL if importlib.util.find_spec(one[1]) is None]
    there = [n for n in (*EXTRAS, *(one[0] for one in OPTIONAL)) if n not in (*missing, *(one[0] for one in absent))]
    facts.append(("extras", ", ".join(f"{name} {_version(name)}" for name in there) or "none"))
    facts += [("without", f'{name}, for {use}: pip install -e ".[{extra}]"') for name, _, use, extra in absent]
    if missing:
        problems.append((f"missing packages: {', '.join(missing)}", 'pip install -e ".[train]"'))
    facts.append(("data", _data()))
    facts.append(("compile cache", _cache(problems)))
    return facts, problems


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(problems: list[tuple[str, str]]) -> list[tuple[str, str]]:
    try:
        import jax
        import jax.numpy as jnp

        devices = jax.devices()
        backend = jax.default_backend()
        float(jnp.ones(8).sum())  # the device answers
    except Exception as error:  # jax raises many kinds, and each is what the doctor is here for
        problems.append(diagnose(f"{error}"))
        return [("devices", "unavailable")]
    kinds = sorted({device.device_kind for device in devices})
    facts = [("devices", f"{len(devices)} x {', '.join(kinds)} ({backend}), {jax.process_count()} process(es)")]
    for device in devices:
        used = device.memory_stats() if backend != "cpu" else None
        if used and "bytes_limit" in used:
            free = (used["bytes_limit"] - used.get("bytes_in_use", 0)) / 2**30
            facts.append((f"  device {device.id}", f"{used['bytes_limit'] / 2**30:.1f} GiB, {free:.1f} GiB free"))
    if backend == "cpu" and "cpu" not in os.environ.get("JAX_PLATFORMS", ""):
        if any(Path("/dev").glob("nvidia[0-9]*")):
            problems.append(("there is an NVIDIA GPU, but jax runs on the CPU", 'pip install -U "jax[cuda13]"'))
        elif any(Path("/dev").glob("accel[0-9]*")):
            problems.append(("there is a TPU, but jax runs on the CPU", 'pip install -U "jax[tpu]"'))
    return facts


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory() -> tuple[int, int] | None:
    """Bytes in all and free, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
        return sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _data() -> str:
    from dlkit.data.mnist import folders

    found = [str(folder) for folder in folders() if any(folder.glob("train-images-idx3-ubyte*"))]
    return f"mnist in {found[0]}" if found else "mnist not here yet: it is downloaded when first asked for"


def _cache(problems: list[tuple[str, str]]) -> str:
    from dlkit.cli.setup import cache_folder

    folder = cache_folder()
    if not folder.exists():
        return f"{folder} (empty)"
    if folder.stat().st_mode & 0o022:
        problems.append((f"others can write to the compilation cache {folder}: it is not used", f"chmod 700 {folder}"))
    size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    return f"{folder} ({size / 2**20:.0f} MiB)"
