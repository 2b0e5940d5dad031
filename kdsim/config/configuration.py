"""The base of all configurations: what happens when one is built, and how one is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from kdsim import notebook_sources
from kdsim.config.allowed import Misfit, exact_types, fitted
from kdsim.config.errors import ConfigError
from kdsim.config.identity import is_own, standing_on
from kdsim.config.values import hints_of

Typed = tuple[tuple[str, Any, frozenset[type]], ...]
_MISSING = object()


class Configuration:
    """Base of the configurations: when one is built, its values are held against the fields' types, then validated.

    A value of another type is refused with the field and what is allowed. Numbers of numpy and torch become Python's,
    so that a configuration, its digest and what is computed with it are those of the same number of Python: np.int32
    would overflow, np.float32 would round what is multiplied with it. What else counts as a value of a type:
    `kdsim.config.allowed.fitted`.
    """

    if TYPE_CHECKING:  # all are dataclasses: `replace` and `fields` take what is typed by its contract
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not is_own(cls):
            notebook_sources.remember(cls)
            with suppress(OSError, ConfigError):  # whoever asks for its digest is told
                standing_on(cls.__module__)  # read now, as it is imported
        if cls.__post_init__ not in _VALIDATORS:
            cls.__post_init__ = _after_types(cls.__post_init__)  # type: ignore[method-assign]  # the class's own, wrapped
        cls.__repr__ = cls.__repr__  # type: ignore[method-assign]  # or dataclass would make one of its own

    def __post_init__(self, *init_only: Any) -> None:
        for name, hint, exact in _typed_fields(type(self)):
            value = getattr(self, name, _MISSING)
            if type(value) in exact or value is _MISSING:
                continue
            try:
                found = fitted(value, hint)
            except Misfit as misfit:
                raise misfit.error(f"{type(self).__name__}.{name}") from None
            if found is not value:
                object.__setattr__(self, name, found)

    def __repr__(self) -> str:
        """One line of Python that builds it, defaults left out."""
        name = type(self).__qualname__.rpartition("<locals>.")[2]
        values = (f"{each.name}={getattr(self, each.name, None)!r}" for each in _told(self))
        return f"{name}({', '.join(values)})"


def _after_types(validate: Callable[..., None]) -> Callable[..., None]:
    """A class's own validation, of values that are of the fields' types."""

    @wraps(validate)
    def post_init(self: Any, *init_only: Any) -> None:
        if type(self).__post_init__ is post_init:  # else a subclass's, which has seen to it, calls that of its base
            Configuration.__post_init__(self)
        validate(self, *init_only)

    _VALIDATORS.add(post_init)
    return post_init


_VALIDATORS: WeakSet[Callable[..., None]] = WeakSet([Configuration.__post_init__])
"""What may stand as `__post_init__`: it sees to the types first."""


def _typed_fields(cls: type) -> Typed:
    """Of each field its name, its type, and the types of values that need no look.

    Any type while an annotation cannot be resolved, which `encode` refuses.
    """
    try:
        return _resolved_fields(cls)
    except ConfigError:
        return tuple((each.name, Any, frozenset()) for each in dataclasses.fields(cls))


@cache
def _resolved_fields(cls: type) -> Typed:
    hints = hints_of(cls)
    return tuple((each.name, hints[each.name], exact_types(hints[each.name])) for each in dataclasses.fields(cls))


def _told(config: Any) -> list[dataclasses.Field[Any]]:
    """The fields of which a repr tells: those that are not at their default, to the last digit."""
    told = []
    for each in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():  # or it lacks its decorator
        factory, value = each.default_factory, getattr(config, each.name, None)
        default = each.default if factory is dataclasses.MISSING else factory()
        usual = type(value) is type(default) and repr(value) == repr(default)
        if each.init and each.repr and not usual:
            told.append(each)
    return told
