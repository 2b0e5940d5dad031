"""The base of all configurations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from kdsim.config.errors import ConfigError
from kdsim.config.identity import is_own, standing_on
from kdsim.config.values import python_numbers


class Configuration:
    """Base of the configurations: when one is built, numbers of numpy and torch become Python's, before its validation.

    So a configuration, its digest and what is computed with it are those of the same number of Python: np.int32 would
    overflow, np.float32 would round what is multiplied with it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not is_own(cls):
            with suppress(OSError, ConfigError):  # whoever asks for its digest is told
                standing_on(cls.__module__)  # read now, as it is imported
        if "__post_init__" in cls.__dict__:
            cls.__post_init__ = _after_numbers(cls.__dict__["__post_init__"])

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if (number := python_numbers(value)) is not value:
                object.__setattr__(self, name, number)


def _after_numbers(validate: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(validate)
    def post_init(self: Any) -> None:
        Configuration.__post_init__(self)
        validate(self)

    return post_init
