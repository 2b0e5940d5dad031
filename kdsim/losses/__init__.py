"""Losses: plain functions of the student's outputs and the target, and configurations that put them together.

`cross_entropy` and `squared_error` are affine in the target: theory and the fused engines use that. The rest compare a
student with a teacher, batch by batch. As a configuration (`DISTILLATION_LOSSES`) each is

    label_weight * cross-entropy on labels + teacher_weight * teacher term

| name | teacher term | published settings |
|---|---|---|
| cross-entropy | cross-entropy against the target's probabilities; no label term | |
| label-cross-entropy | none: the student alone | |
| kd | T^2 KL(p_T, q_T) | 0.1 CE + 0.9, T = 4 |
| bayesian-kd | T S KL(p~_T, q_S), weights 1 - alpha and alpha | alpha = 1, T = S = 1 |
| logit-mse | mean over B and K of (z_s - z_t)^2 | 1, 1 |
| dkd | warm-up T^2 [alpha KL(b_t, b_s) + beta KL(p^, q^)]; K >= 3 | T = 4, alpha = 1, beta 8, 6 or 2 |
| dist | T^2 [beta mean_i (1 - r(p_i, q_i)) + gamma mean_k (1 - r(p_k, q_k))] | beta = gamma = 1, T = 1 or 4 |
| ttm, wttm | KL(p_T, q_1), T = 1 / gamma; each example weighted by sum_k p_k^gamma | gamma = 0.1 or 0.3 |
| ltkd | T^2 [alpha KL(P', Q) + beta sum_G KL(p~_G, q~_G)], groups of classes | not known here: sweep |
| balanced-softmax | cross-entropy of softmax(z + log n); likewise on labels, the default | |
| logit-adjustment | cross-entropy of softmax(z + tau log pi); likewise on labels, the default | tau = 1 |
| switched | one loss, and from an epoch on another | |
| abkd | alpha-beta divergence of p_T and q_T | alpha = beta = 0.5, T = 4 |
| brier, output-mse | mean over B and K of (softmax(z) - q)^2, or (z - q)^2; labels too | labels alone, for teachers |

p is the teacher, q the student, p_T = softmax(z / T), KL summed over classes in nats, everything averaged over the
batch. `standardised=True` standardises both sides' logits before a teacher term with a softmax. Posterior samples
(S, B, K) of a Bayesian teacher are tempered before they are averaged, or after: `posterior_order`. `preset` has the
published settings for pairs of networks. REDistill is left out until the order of its arguments is known.
"""

from kdsim.losses.abkd import abkd, alpha_beta_divergence
from kdsim.losses.base import DistillationLoss, SoftmaxLoss
from kdsim.losses.bayesian_kd import bayesian_kd
from kdsim.losses.brier import brier
from kdsim.losses.cross_entropy import cross_entropy, cross_entropy_gradient, cross_entropy_hessian
from kdsim.losses.dist import dist
from kdsim.losses.distillation import (
    ABKD,
    DIST,
    DKD,
    KD,
    LTKD,
    TTM,
    WTTM,
    BayesianKD,
    Brier,
    CrossEntropy,
    LabelCrossEntropy,
    LogitMSE,
    OutputMSE,
)
from kdsim.losses.dkd import dkd, warmup_factor
from kdsim.losses.kd import kd
from kdsim.losses.logit_adjustment import BalancedSoftmax, LogitAdjustment, adjusted
from kdsim.losses.logit_mse import logit_mse
from kdsim.losses.ltkd import class_groups, ltkd
from kdsim.losses.posterior import PosteriorOrder, average_posterior
from kdsim.losses.presets import PRESETS, preset
from kdsim.losses.squared_error import squared_error, squared_error_gradient, squared_error_hessian
from kdsim.losses.standardise import standardise
from kdsim.losses.switched import Switched
from kdsim.losses.terms import label_cross_entropy
from kdsim.losses.ttm import ttm, wttm

DISTILLATION_LOSSES = (
    CrossEntropy,
    LabelCrossEntropy,
    KD,
    BayesianKD,
    LogitMSE,
    DKD,
    DIST,
    TTM,
    WTTM,
    LTKD,
    ABKD,
    Brier,
    OutputMSE,
    BalancedSoftmax,
    LogitAdjustment,
    Switched,
)
"""Every distillation loss, in the order in which messages list them."""

__all__ = [
    "ABKD",
    "DIST",
    "DISTILLATION_LOSSES",
    "DKD",
    "KD",
    "LTKD",
    "PRESETS",
    "TTM",
    "WTTM",
    "BalancedSoftmax",
    "BayesianKD",
    "Brier",
    "CrossEntropy",
    "DistillationLoss",
    "LabelCrossEntropy",
    "LogitAdjustment",
    "LogitMSE",
    "OutputMSE",
    "PosteriorOrder",
    "SoftmaxLoss",
    "Switched",
    "abkd",
    "adjusted",
    "alpha_beta_divergence",
    "average_posterior",
    "bayesian_kd",
    "brier",
    "class_groups",
    "cross_entropy",
    "cross_entropy_gradient",
    "cross_entropy_hessian",
    "dist",
    "dkd",
    "kd",
    "label_cross_entropy",
    "logit_mse",
    "ltkd",
    "preset",
    "squared_error",
    "squared_error_gradient",
    "squared_error_hessian",
    "standardise",
    "ttm",
    "warmup_factor",
    "wttm",
]
