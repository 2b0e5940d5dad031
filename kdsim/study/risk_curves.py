"""A cell's excess risk in theory at the checkpoints: the exact curve of least squares, and the bounds T2 and T2'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kdsim.population import Population
from kdsim.study.base import Cell
from kdsim.theory.prediction import second_moments


def risk_curves(
    cell: Cell, population: Population, reference: Tensor, predicted: Mapping[str, Any], steps: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns `exact_excess_risk`, `risk_bound` and `sharp_risk_bound` at the given steps; NaN where there is none.

    Args:
        reference: theta*, (K, d).
        predicted: the cell's prediction, flat.
    """
    nothing = np.full(len(steps), np.nan)
    columns = {"exact_excess_risk": nothing, "risk_bound": nothing, "sharp_risk_bound": nothing}
    if predicted.get("exact_excess_risk") is not None:
        moments = second_moments(population, cell.student.ridge, cell.sgd.batch_size)
        columns["exact_excess_risk"] = moments.risk_curve(cell.supervision, cell.step_size, -reference, steps)
    for name in ("risk_bound", "sharp_risk_bound"):
        if predicted.get(f"{name}_valid") and predicted[f"{name}_floor"] is not None:
            transient = (1 - cell.step_size * predicted["mu_pl"]) ** steps * predicted["initial_excess"]
            columns[name] = transient + predicted[f"{name}_floor"]
    return columns
