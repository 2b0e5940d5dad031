"""Teachers that did not start where their students do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kdsim.teachers.deterministic import Deterministic


@dataclass(frozen=True)
class OtherStart(Deterministic):
    """Teacher n is network n + 1 of the training, and the last one network 0.

    Replicas of one number share first weights, order of points and drawn labels: student n would start where teacher n
    did and, on labels alone, become teacher n. Here it is a network of its own. The price is that what replica n shows
    shares the randomness of its teacher with replica n + 1.
    """

    name: ClassVar[str] = "other-start"

    def replicas_of(self, number: int) -> Sequence[int]:
        return ((number + 1) % self.training.replicas,)
