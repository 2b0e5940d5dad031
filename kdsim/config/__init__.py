"""Configurations: frozen dataclasses with validation, a JSON form, a digest and `key=value` overrides.

A configuration is a frozen dataclass whose fields are numbers, strings, tuples or
other configurations. Implementations of a contract (a problem, a supervision, ...)
carry a class attribute `name`, which is their name in JSON and on the command line.
"""

from __future__ import annotations

from kdsim.config.configuration import Configuration
from kdsim.config.decoding import decode
from kdsim.config.encoding import (
    CLASS,
    FILES,
    MARKS,
    SCHEMA_VERSION,
    SOURCE,
    digest,
    digest_of_form,
    encode,
    require_told_apart,
    require_unchanged,
)
from kdsim.config.errors import (
    ConfigError,
    by_name,
    choose,
    error_line,
    in_study_file,
    lacks_memory,
    require,
    require_between,
    require_count,
    require_positive,
    shown,
    unknown_name,
)
from kdsim.config.identity import is_own, kind_of, source_digest
from kdsim.config.overrides import override
from kdsim.config.values import python_numbers

__all__ = [
    "CLASS",
    "FILES",
    "MARKS",
    "SCHEMA_VERSION",
    "SOURCE",
    "ConfigError",
    "Configuration",
    "by_name",
    "choose",
    "decode",
    "digest",
    "digest_of_form",
    "encode",
    "error_line",
    "in_study_file",
    "is_own",
    "kind_of",
    "lacks_memory",
    "override",
    "python_numbers",
    "require",
    "require_between",
    "require_count",
    "require_positive",
    "require_told_apart",
    "require_unchanged",
    "shown",
    "source_digest",
    "unknown_name",
]
