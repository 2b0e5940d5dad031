"""What a noise model states about itself, checked when its class is read and again before a member of it is used."""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import re
from typing import TYPE_CHECKING, Any

from kdsim.config import ConfigError, kind_of, require

if TYPE_CHECKING:
    from kdsim.supervision.base import Supervision

FLAGS = ("unbiased", "sums_to_one", "on_simplex", "uses_x")
"""Class attributes of which theory and engines make decisions: a text such as "no" would count as yes."""
_NO_NUMBER = re.compile(
    r"(typing\.)?(str|bytes|bool|None|NoneType|tuple|list|dict|set|Tuple|List|Dict|Literal|ClassVar)\b"
)


def require_class(cls: type[Supervision]) -> None:
    """Refuse a class whose `level_field` names no numeric field, or one of whose flags is neither True nor False.

    Abstract classes pass: what they leave out their subclasses may add.
    """
    if any(getattr(getattr(cls, name), "__isabstractmethod__", False) for name in ("sample", "mean", "covariance")):
        return
    for flag in FLAGS:
        stated = getattr(cls, flag, None)
        require(isinstance(stated, bool), f"{flag} of supervision {_named(cls)}", stated, "True or False")
    if (name := cls.level_field) is None:
        return
    annotated: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotated |= inspect.get_annotations(base)
    own = [each for each, hint in annotated.items() if "ClassVar" not in str(hint)]
    what = f"level_field of supervision {_named(cls)}"
    require(
        isinstance(name, str) and name in own, what, name, f"a field ({', '.join(own) or 'there are none'}) or None"
    )
    hint = annotated[name]
    text = hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))
    if _NO_NUMBER.match(text) and "|" not in text:
        raise ConfigError(f"{what} = {name!r} is not allowed: that field is a {text}, must be a number")
    default = getattr(cls, name, dataclasses.MISSING)
    if isinstance(default, dataclasses.Field):
        default = default.default
    if default is not dataclasses.MISSING:
        _require_level(cls, default)


def require_declared(supervision: Supervision) -> None:
    """Refuse a member whose level is no number, or which does not say whether it is noiseless."""
    cls = type(supervision)
    require_class(cls)
    level = supervision.level if cls.level_field is None else getattr(supervision, cls.level_field, None)
    if level is not None or cls.level_field is not None:
        _require_level(cls, level)
    noiseless = supervision.noiseless
    require(isinstance(noiseless, bool), f"noiseless of supervision {_named(cls)}", noiseless, "True or False")


def _require_level(cls: type[Supervision], level: object) -> None:
    number = isinstance(level, numbers.Real) and not isinstance(level, bool) and not math.isnan(level)
    what = f"{cls.level_field or 'level'} of supervision {_named(cls)}"
    require(number, what, level, "a number: it is the level, the amount of noise")


def _named(cls: type[Supervision]) -> str:
    return str(kind_of(cls))
