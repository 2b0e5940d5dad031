"""Which figure a result has, and its drawing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kdsim.config import ConfigError, choose, require

if TYPE_CHECKING:
    from kdsim.figures.style import Figure
    from kdsim.results.store import StudyResults

DEFAULT = "learning-curves"


def figure_function(figure: Any) -> Callable[..., Figure]:
    """The function of a study's `figure`: a name in `kdsim.figures`, a function, or None for the default.

    Raises:
        ConfigError: there is no figure of that name, or it is neither.
    """
    from kdsim.figures import FIGURES

    if figure is None or isinstance(figure, str):
        return choose("figure", DEFAULT if figure is None else figure, FIGURES)
    require(callable(figure), "figure", figure, "the name of a figure of kdsim or a function")
    return figure


def drawn(results: StudyResults, figure: Any = None) -> Figure:
    """Draw a result.

    A results folder may come from anybody: the figure that it names is one of kdsim's, and never code.

    Args:
        results: what the figure is drawn from.
        figure: a function or a name; None: what is stored says it.

    Raises:
        ConfigError: the figure is a function of a study that was not given.
    """
    reference = results.info.get("figure") or {}
    if figure is None and reference.get("file") is not None:
        raise ConfigError(
            f"the figure of {results.name!r} is a function of a study: give it, as in kd.load(..., study=MyStudy) or "
            f"study='FILE.py'; when it was stored, it was in {reference['file']!s:.500}"
        )
    return figure_function(figure if figure is not None else reference.get("name"))(results)
