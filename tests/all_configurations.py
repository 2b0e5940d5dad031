"""Every configuration class of kdsim: those that fields may hold, and all others that kdsim's modules define."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Iterator

import kdsim.claims
import kdsim.experiments  # noqa: F401
from kdsim.cli.reproduce import _further_classes
from kdsim.config import Configuration
from kdsim.studies import STUDIES
from kdsim.study.base import Cell
from kdsim.study.stored_configs import KNOWN
from kdsim.trainer import StudentTrainer


def configurations(roots: Iterable[type]) -> list[type]:
    """The classes and all that their fields may hold, by the fields' types."""
    found: dict[type, None] = {}  # in order
    waiting = list(roots)
    while waiting:
        hint = waiting.pop()
        waiting.extend(typing.get_args(hint))
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint not in found:
            if not inspect.isabstract(hint):
                found[hint] = None
            hints = typing.get_type_hints(hint)
            waiting.extend(hints[field.name] for field in dataclasses.fields(hint))
    return list(found)


def subclasses(cls: type) -> Iterator[type]:
    """Of kdsim's modules, at any depth, but for those that cannot be built."""
    for each in cls.__subclasses__():
        if each.__module__.partition(".")[0] == "kdsim" and not inspect.isabstract(each):
            yield each
        yield from subclasses(each)


ROOTS = (*KNOWN, *_further_classes(), *STUDIES, Cell, StudentTrainer)
CONFIGURATIONS = list(dict.fromkeys([*configurations(ROOTS), *subclasses(Configuration)]))
