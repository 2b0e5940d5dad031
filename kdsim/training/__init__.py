"""How a network is trained: recipes, a replica under way, what it saw, files of weights. `kdsim.trainer` joins them."""

from kdsim.training.evaluation import log_probs_of, scores
from kdsim.training.recipe import CRD, RECIPES, BayesianKDRecipe, Recipe
from kdsim.training.record import TrainingRecord
from kdsim.training.trained import TrainedNetwork
from kdsim.training.walk import Task, Walk

__all__ = [
    "CRD",
    "RECIPES",
    "BayesianKDRecipe",
    "Recipe",
    "Task",
    "TrainedNetwork",
    "TrainingRecord",
    "Walk",
    "log_probs_of",
    "scores",
]
