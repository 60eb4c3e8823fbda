"""What a run is, as data: a strict TOML schema, definitions as plain data, and what builds a run from them."""

from dlkit.config.definitions import from_data, to_data
from dlkit.config.errors import ConfigError
from dlkit.config.load import load, parse
from dlkit.config.resolved import diff, dump, save
from dlkit.config.schema import Config

__all__ = ["Config", "ConfigError", "diff", "dump", "from_data", "load", "parse", "save", "to_data"]
