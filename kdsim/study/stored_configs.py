"""Configurations of stored cells, read back from what cell.json says of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsim import config
from kdsim.config import CLASS, SOURCE, ConfigError
from kdsim.data import SUBSETS
from kdsim.problems import IMAGE_PROBLEMS
from kdsim.study.base import Cell, Computation
from kdsim.study.eigen_paths import EigenPaths
from kdsim.study.loading import CONTRACTS, study_of_file
from kdsim.study_files import modules_of, study_file_of
from kdsim.trainer import StudentTrainer, Teacher

IMPLEMENTATIONS = tuple(cls for classes in CONTRACTS.values() for cls in classes)
KNOWN: tuple[type, ...] = (*IMPLEMENTATIONS, *SUBSETS, *IMAGE_PROBLEMS, EigenPaths)
"""What a stored configuration may name; further computations of kdsim's are given by the caller."""

RERUN = Cell | StudentTrainer | Teacher | Computation
"""What a cell is."""


@dataclass(frozen=True)
class Classes:
    """Classes that stored configurations may name.

    Attributes:
        known: kdsim's, then those of the study files.
        sources: SHA-256 of those files.
    """

    known: tuple[type, ...]
    sources: frozenset[str] = frozenset()


def classes_of(files: Iterable[str | Path], more: Iterable[type] = ()) -> Classes:
    """kdsim's classes, and those of study files that the user names, whose code runs.

    Raises:
        ConfigError: a file is no study file.
    """
    found = []
    for file in files:
        study_file = study_file_of(study_of_file(Path(file)).__module__)
        for module in modules_of(study_file):
            found += [cls for cls in vars(module).values() if isinstance(cls, type) and dataclasses.is_dataclass(cls)]
    own = tuple(cls for cls in dict.fromkeys(found) if not inspect.isabstract(cls) and not config.is_own(cls))
    return Classes((*KNOWN, *more, *own), frozenset(map(config.source_digest, own)))


def read_config(digest: str, info: Mapping[str, Any], classes: Classes) -> Any:
    """The configuration of a stored cell, from the content of its cell.json.

    Raises:
        ConfigError: it has parts from a study file that is not among the classes, or it is not that of the digest.
    """
    if missing := {source: kind for kind, source in _sources(info["cell"]) if source not in classes.sources}:
        names = ", ".join(sorted(set(missing.values())))
        sums = ", ".join(f"{source[:12]}..." for source in sorted(missing))
        what = "give it by --study" if not classes.sources else "none of those given by --study has this SHA-256"
        raise ConfigError(f"defined in a study file ({names}; SHA-256 {sums}): {what}")
    found = config.decode(info["cell"], classes.known, RERUN)
    if config.digest(found) != digest:
        raise ConfigError(f"its configuration has the digest {config.digest(found)}: another version of kdsim wrote it")
    return found


def _sources(data: Any) -> Iterator[tuple[str, str]]:
    """Kind and SHA-256 of all parts from study files."""
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            if SOURCE in item:
                yield f"{item.get(CLASS)!s:.60}", str(item[SOURCE])
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def on_device(value: Any, device: str) -> Any:
    """A configuration with all its parts on another device. A training keeps its precision, "auto" or not."""
    if isinstance(value, tuple):
        return tuple(on_device(item, device) for item in value)
    if not dataclasses.is_dataclass(value):
        return value
    names = [each.name for each in dataclasses.fields(value) if each.init]
    changes = {name: device if name == "device" else on_device(getattr(value, name), device) for name in names}
    moved = dataclasses.replace(value, **changes)
    if isinstance(value, StudentTrainer) and moved.precision != value.precision:
        moved = dataclasses.replace(moved, recipe=dataclasses.replace(moved.recipe, precision=value.precision))
    return moved
