"""Contract of a problem: a generator of populations whose Bayes class probabilities are exactly known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from kdsim.config import ConfigError, Configuration, error_line, in_study_file, kind_of, lacks_memory
from kdsim.population import Population


class Split(NamedTuple):
    """Three pools of one problem and seed: the same classes, no point in common."""

    train: Population
    validation: Population
    test: Population


class Problem(Configuration, ABC):
    """A generator of populations. Implementations are frozen dataclasses whose fields are its parameters."""

    name: ClassVar[str]
    student: ClassVar[str] = "softmax-regression"
    """Name of the student for which `Population.optimum` is realisable."""

    @abstractmethod
    def population(self, seed: int) -> Population:
        """Draw the pool. The same seed gives the same pool on every machine (numpy generator, float64)."""


def drawn(problem: Problem, seed: int) -> Population:
    """The pool of a problem.

    Raises:
        ConfigError: the problem is one of a study file, and its code failed; the message says where.
    """
    try:
        return problem.population(seed)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a study file's own code can raise anything
        if isinstance(error, ConfigError) or lacks_memory(error) or not in_study_file(error):
            raise
        raise ConfigError(f"population of {kind_of(type(problem))}: {error_line(error)}") from error
