"""Standardised logits: a transform of both sides before any loss on their softmax."""

from __future__ import annotations

from torch import Tensor

EPSILON = 1e-7


def standardise(logits: Tensor, *, correction: int = 0) -> Tensor:
    """(z - mean) / (1e-7 + std), mean and standard deviation over the classes. (..., K) -> (..., K).

    The student then has to match the teacher's order and proportions, not its scale. Use it on teacher and student
    before a loss: `kd(standardise(z_s), standardise(z_t), temperature=2)`. The cross-entropy on labels keeps z_s.

    Args:
        logits: (..., K).
        correction: 0 divides by K under the root, as in the formula; 1 by K - 1, torch's default, which the published
            figures were made with. At K = 100 this is a temperature lower by 0.5 %.

    Source: S. Sun, W. Ren, J. Li, R. Wang, X. Cao, "Logit standardization in knowledge distillation", CVPR 2024,
    arXiv 2403.01427.
    """
    # Off the largest first: rows of equal logits are then exactly zero whatever their size.
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    centred = shifted - shifted.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (logits.shape[-1] - correction)
    constant = variance == 0  # the root has no derivative there: a student whose last layer starts at zero
    deviation = variance.masked_fill(constant, 1.0).sqrt().masked_fill(constant, 0.0)
    return centred / (EPSILON + deviation)
