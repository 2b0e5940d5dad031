"""Every configuration class of kdsim, found by the types of fields."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable

from kdsim.cli.reproduce import _further_classes
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


ROOTS = (*KNOWN, *_further_classes(), *STUDIES, Cell, StudentTrainer)
CONFIGURATIONS = configurations(ROOTS)
