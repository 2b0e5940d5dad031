"""A cell's dynamics beside theory: the linearised learning curve, and the spectrum of the fluctuations in the tail."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from kdsim.engines.recorder import Record
from kdsim.measure.spectrum import spectrum
from kdsim.population import Population
from kdsim.students import LinearStudent
from kdsim.study.base import Cell
from kdsim.theory.directions import directional_theory, eigendirections
from kdsim.theory.prediction import aim_of
from kdsim.theory.transient import linearised_curve


def theory_applies(cell: Cell) -> bool:
    """Plain SGD of a linear student, fresh targets and batches drawn with replacement from the whole pool."""
    if not isinstance(cell.student, LinearStudent) or not cell.sgd.plain:
        return False
    return cell.sgd.targets == "fresh" and cell.sgd.index == "replacement" and cell.sgd.training_set is None


def linearised(cell: Cell, population: Population, reference: Tensor, steps: np.ndarray) -> np.ndarray:
    """E|theta_t - theta*|^2 of the linearised dynamics at the given steps (see `linearised_curve`), or NaN."""
    if not theory_applies(cell):
        return np.full(len(steps), np.nan)
    return linearised_curve(
        cell.student,
        population,
        cell.supervision,
        cell.step_size,
        cell.sgd.batch_size,
        aim=aim_of(cell.student, population, cell.supervision),
        reference=reference,
        initial=reference.new_zeros(reference.shape),  # SGD starts at zero
        steps=steps,
    )


def pack_directions(cell: Cell, population: Population, reference: Tensor) -> Tensor | None:
    """The directions that the cell's recording asks for, (m, K, d), or None: eigenvectors of H at the reference."""
    if cell.recording.directions == 0:
        return None
    return eigendirections(cell.student, population, reference, cell.recording.directions)[1]


def spectrum_table(cell: Cell, population: Population, reference: Tensor, record: Record) -> pd.DataFrame | None:
    """One row a direction: `directional_theory` beside what `measure.spectrum` finds.

    None where no directions were recorded, a replica diverged, or SGD does not aim at the reference (biased
    supervision), where the mean along a direction is not zero. Theory's columns are NaN where it does not apply.
    """
    if record.along is None or not cell.supervision.unbiased or (record.diverged_at >= 0).any():
        return None
    table = spectrum(record.along, cell.recording.tail_stride)
    theory = directional_theory(
        cell.student,
        population,
        cell.supervision,
        cell.step_size,
        cell.sgd.batch_size,
        reference,
        cell.recording.directions,
    )
    for name, values in theory.items():
        table[name] = values if name == "curvature" or theory_applies(cell) else np.nan
    return table
