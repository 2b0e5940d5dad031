"""Indices and targets of all replicas of all lanes, a chunk of steps at a time: what every torch engine shares.

They do not depend on the parameters, and a replica's do not depend on packing or chunks (see `kdsim.rng`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdsim import config
from kdsim.engines.base import DTYPES, SGD, Lane, check_device
from kdsim.population import Known, Population
from kdsim.rng import Draws, Stream, permuted_index, uniform_index
from kdsim.supervision.base import Batch, Supervision
from kdsim.supervision.checks import require_target
from kdsim.supervision.declarations import require_declared


@dataclass(frozen=True)
class _Family:
    """Rows of the replica axis whose supervisions differ in level only, served by one `sample` call.

    Attributes:
        supervision: all levels in one, see `Supervision.stacked`.
        rows: numbers of its rows, (M,).
        levels: level of each, or None where the class has none.
    """

    supervision: Supervision
    rows: Tensor
    levels: list[float] | None


class Samples:
    """Indices, inputs and targets of all replicas, a chunk of steps at a time."""

    def __init__(
        self, population: Population, lanes: Sequence[Lane], sgd: SGD, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.sgd, self.dtype, self.device = sgd, dtype, device
        self.size = population.size
        self.x = population.x.to(device, dtype)
        self.p = None if population.p is None else population.p.to(device, dtype)
        self.y = None if population.y is None else population.y.to(device)
        self.classes = population.classes
        if sgd.training_set is not None:
            config.require_between("training_set", sgd.training_set, 1, population.size)
        pairs = [(lane.seed, lane.first_replica + r) for lane in lanes for r in range(lane.replicas)]
        # Lanes of one study share seed and replica numbers: their common random numbers are generated once.
        unique = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        keys = torch.tensor(list(unique), dtype=torch.int64, device=device)  # (U, 2)
        self.seed, self.replica = keys[:, :1], keys[:, 1:]
        self.rows = torch.tensor([unique[pair] for pair in pairs], device=device)  # (R,)
        self.families = _families(lanes, device)

    def chunk(self, first_step: int, last_step: int) -> tuple[Tensor, Known]:
        """Pool indices (R, V) and targets (R, V, K) of the visits of these steps."""
        return self.visits(first_step, last_step, targets=True)

    def visits(self, first_step: int, last_step: int, *, targets: bool) -> tuple[Tensor, Known]:
        """As `chunk`; without `targets` none are drawn, for students that listen to a teacher."""
        start, end = first_step * self.sgd.batch_size, last_step * self.sgd.batch_size
        visit = torch.arange(start, end, device=self.device)[None, :]  # (1, V)
        index = self._index(visit, start)[self.rows]  # (R, V)
        return index, self._all_targets(index, visit, start) if targets else None

    def training_sets(self) -> tuple[Tensor, Tensor]:
        """Pool indices (R, N) and frozen targets (R, N, K) of all that each replica may visit."""
        number = torch.arange(self.sgd.training_set or self.size, device=self.device).expand(len(self.seed), -1)
        index = (number if self.sgd.training_set is None else self.members(number))[self.rows]
        return index, self._all_targets(index, number, 0)

    def _all_targets(self, index: Tensor, visit: Tensor, start: int) -> Tensor:
        q = torch.empty(*index.shape, self.classes, dtype=self.dtype, device=self.device)
        for family in self.families:
            q[family.rows] = self._targets(family, index[family.rows], visit, start)
        return q

    def _index(self, visit: Tensor, start: int) -> Tensor:
        """Pool index of each visit of each distinct (seed, replica), (U, V)."""
        size = self.sgd.training_set or self.size
        if self.sgd.index == "permutation":
            index = permuted_index(self.seed, self.replica, visit, size)
        else:
            draws = Draws(self.seed, self.replica, visit, Stream.INDEX, self.dtype, start=start)
            index = uniform_index(draws.words(0), size)
        return index if self.sgd.training_set is None else self.members(index)

    def members(self, number: Tensor) -> Tensor:
        """Pool index of member `number` (U, V) of each training set: a permutation of the pool, keyed apart."""
        return permuted_index(self.seed, self.replica, number, self.size, Stream.SPLIT)

    def _targets(self, family: _Family, index: Tensor, visit: Tensor, start: int) -> Tensor:
        rows = self.rows[family.rows]
        if self.sgd.targets == "frozen":  # keyed by pool index: every visit of a point draws the same target
            draws = Draws(self.seed[rows], self.replica[rows], index, Stream.LABEL, self.dtype)
        else:
            draws = Draws(self.seed, self.replica, visit, Stream.LABEL, self.dtype, start=start, rows=rows)
        batch = Batch(
            index=index,
            p=None if self.p is None else self.p[index],
            y=None if self.y is None else self.y[index],
            x=self.x[index] if family.supervision.uses_x else None,
        )

        def where(row: int, column: int) -> str:
            level = "" if family.levels is None else f", level {family.levels[row]:g}"
            numbers = f"replica {int(self.replica[rows[row]])}{level}, pool point {int(index[row, column])}"
            number = start + column  # of the visit; frozen targets are drawn before there are steps
            fresh = self.sgd.targets == "fresh"
            return f"step {number // self.sgd.batch_size + 1} (visit {number}), {numbers}" if fresh else numbers

        return require_target(family.supervision, family.supervision.sample(batch, draws), batch, where)


def frozen_targets(
    population: Population, lanes: Sequence[Lane], sgd: SGD, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The training set of each replica with its frozen targets: what the visits of a run see, each point once.

    Returns:
        Pool indices (R, N) and targets (R, N, K) in the run's dtype; N is the pool's size without a training set.

    Raises:
        ConfigError: the targets are fresh.
    """
    config.require(sgd.targets == "frozen", "targets", sgd.targets, "frozen: fresh targets are no data set")
    return Samples(population, lanes, sgd, DTYPES[sgd.dtype], check_device(device)).training_sets()


def _families(lanes: Sequence[Lane], device: torch.device) -> list[_Family]:
    groups: dict[tuple[type[Supervision], str], list[int]] = {}
    for number, lane in enumerate(lanes):
        require_declared(lane.supervision)
        form = config.encode(lane.supervision)
        form.pop(lane.supervision.level_field, None)
        groups.setdefault((type(lane.supervision), str(sorted(form.items()))), []).append(number)
    first_row = [0]
    for lane in lanes:
        first_row.append(first_row[-1] + lane.replicas)
    families = []
    for members in groups.values():
        rows = torch.cat([torch.arange(first_row[m], first_row[m + 1]) for m in members]).to(device)
        supervisions, counts = [lanes[m].supervision for m in members], [lanes[m].replicas for m in members]
        levels: list[Any] = [s.level for s, count in zip(supervisions, counts, strict=True) for _ in range(count)]
        stack = type(supervisions[0]).stacked(supervisions, counts, device)
        families.append(_Family(stack, rows, None if supervisions[0].level_field is None else levels))
    return families
