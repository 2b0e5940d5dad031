"""Cells that are computations: how one runs and is stored, and its row."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kdsim import config
from kdsim.config import CLASS, MARKS, ConfigError
from kdsim.results import schema
from kdsim.results.json_files import json_ready
from kdsim.results.rows import COMPUTATION, OWN_COLUMNS
from kdsim.study.base import Computation, Computed, Study
from kdsim.study.packs import cells_of

if TYPE_CHECKING:  # the store reads rows
    from kdsim.results.store import Store

_OWN = ("study", "cell", "kind", "computation", "words", "source")
"""Columns that every row of a computation has."""


@dataclass(frozen=True)
class Computing:
    """A computation that is to be run.

    Attributes:
        computation: what runs.
    """

    computation: Computation

    replicas: int = dataclasses.field(default=1, init=False)
    steps: int = dataclasses.field(default=1, init=False)  # for the progress report

    @property
    def cell(self) -> Computation:
        """The cell that it is."""
        return self.computation

    @cached_property
    def digest(self) -> str:
        """Of the computation: it names the result."""
        return config.digest(self.computation)

    def __str__(self) -> str:
        """What it is, for messages."""
        return f"computation {config.kind_of(type(self.computation))}"

    def run(
        self, store: Store, report: Callable[[int, int], None], stop: Callable[[], bool], stamp: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Compute and store: the content of cell.json. It is not interrupted, so `stop` is not asked.

        Raises:
            ConfigError: the result is no `Computed`, or names a column that a setting has.
        """
        report(0, 1)
        started = time.monotonic()
        found = self.computation.compute()
        settings = summary(self.computation)
        _check(self.computation, found, settings)
        content = {
            "kind": COMPUTATION,
            "cell": config.encode(self.computation),
            "summary": settings,
            "prediction": {},
            "measurement": json_ready(found.measurement),
            OWN_COLUMNS: {column.name: column.encoded() for column in self.computation.columns},
            "provenance": dict(found.provenance),
            "seed": getattr(self.computation, "seed", None),
            "device": getattr(self.computation, "device", "cpu"),
            "replica_steps": 1,
            "wall_seconds": time.monotonic() - started,
            **stamp,
        }
        config.require_unchanged(self.computation, self.digest)
        store.write_cell(self.digest, content, found.curves, found.replicas)
        report(1, 1)
        return content


def summary(computation: Computation) -> dict[str, Any]:
    """Its kind and its fields, flat: those of a part are PART.NAME."""
    own = {"computation": config.kind_of(type(computation)), "words": computation.words}
    return own | _flat(config.encode(computation))


def _flat(encoded: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in encoded.items():
        if key in MARKS:
            continue
        if isinstance(value, Mapping):
            found[prefix + key] = value[CLASS]
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            texts = [item[CLASS] if isinstance(item, Mapping) else f"{item}" for item in value]
            found[prefix + key] = ", ".join(texts)
        else:
            found[prefix + key] = value
    return found


def _check(computation: Computation, found: Any, settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be a row: nothing is overwritten silently."""
    name = config.kind_of(type(computation))
    if taken := sorted(settings.keys() & {field.name for field in dataclasses.fields(computation)} & set(_OWN)):
        raise ConfigError(f"computation {name}: no field may be called {', '.join(taken)}")
    if not isinstance(found, Computed):
        raise ConfigError(f"computation {name}: compute() must return a Computed, it returned {found!r:.60}")
    if twice := sorted((settings.keys() | set(_OWN)) & found.measurement.keys()):
        raise ConfigError(f"computation {name}: {', '.join(twice)} is a setting and cannot be a measurement")
    for column, value in json_ready(found.measurement).items():
        declared = schema.find(column, COMPUTATION, own=computation.columns)
        if declared is not None and not schema.is_value(value, declared.type):
            raise ConfigError(f"computation {name}: {column} = {value!r:.60} must be of the type {declared.type}")


def planned_rows(study: Study) -> list[dict[str, Any]]:
    """What would be computed: one row a computation, with its settings."""
    cells = (cell for cell in cells_of(study) if isinstance(cell, Computation))
    return [{"cell": config.digest(cell), **summary(cell)} for cell in cells]
