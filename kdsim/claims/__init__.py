"""The ledger of claims: what three papers say, one entry a claim, and what kdsim's studies make of it."""

from kdsim.claims import convex, deviations, long_tail, noise, polyak_lojasiewicz, propositions, teachers
from kdsim.claims.base import Claim, NotCovered

CLAIMS: tuple[Claim, ...] = (
    *propositions.CLAIMS,
    *convex.CLAIMS,
    *polyak_lojasiewicz.CLAIMS,
    *noise.CLAIMS,
    *teachers.CLAIMS,
    *deviations.CLAIMS,
    *long_tail.CLAIMS,
)
"""Every claim, in the order in which the ledger lists them."""

NOT_COVERED = (
    NotCovered(
        "[M]",
        "distillation on CIFAR-100 and TinyImageNet at the published size",
        "It takes GPU-days; TinyImageNet is no source of kdsim.",
    ),
    NotCovered(
        "[K]",
        "long-tailed ImageNet (ImageNet-LT), and CIFAR-100-LT at the published size",
        "The former is no source of kdsim.",
    ),
    NotCovered("[N]", "experiments on language", "kdsim has no language models."),
)
"""What the papers report and no study of kdsim tests."""

__all__ = ["CLAIMS", "NOT_COVERED", "Claim", "NotCovered"]
