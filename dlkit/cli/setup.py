"""What must be settled before the first array exists: the platform, the precision, the compilation cache."""

import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dlkit.config.errors import ConfigError

__all__ = ["cache_folder", "prepare"]

HINTS = {
    "gpu": 'pip install -U "jax[cuda13]" (NVIDIA), and check `dlkit doctor`',
    "tpu": 'pip install -U "jax[tpu]", and check `dlkit doctor`',
    "cpu": "check the environment variable JAX_PLATFORMS",
}


def cache_folder() -> Path:
    """The user's own folder for compiled programs: `$XDG_CACHE_HOME/dlkit/jax` or `~/.cache/dlkit/jax`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dlkit" / "jax"


def prepare(platform: str = "auto", precision: str = "default") -> AbstractContextManager[Any]:
    """Set the platform and the compilation cache; returns the context in which matmuls have this precision.

    A cache folder that the user has chosen (`JAX_COMPILATION_CACHE_DIR`) is kept.

    Raises:
      ConfigError: the platform is not there.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        _use_cache(cache_folder())
    if platform != "auto":
        try:
            if platform == "cpu":  # elsewhere JAX would take an accelerator first
                jax.config.update("jax_platforms", "cpu")
            found = jax.devices()[0].platform
            if found != platform:
                raise RuntimeError(f"jax found only {found!r} devices")
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"train.platform is {platform!r}, but {reason}; {HINTS[platform]}") from None
    return jax.default_matmul_precision(None if precision == "default" else precision)


def _use_cache(folder: Path) -> None:
    import jax

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError:
        return  # a home that cannot be written: compile every time
    # Compiled programs are run as they are: only a folder that nobody else can write to is trusted.
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
