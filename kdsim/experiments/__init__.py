"""What is run: experiments, how they are trained and recorded, and studies, which are lists of them.

`Experiment` builds an experiment from its parts. Today it is a `Cell` (a problem and SGD, on the engines) or a
`StudentTrainer` (networks, recipes, teachers); both are configurations, whose digest names their results.
"""

from kdsim.data.augmentation import CropFlip
from kdsim.engines.base import SGD
from kdsim.engines.optimisers import Adam, GradientDescent, Optimiser
from kdsim.engines.recorder import Recording
from kdsim.engines.schedules import Constant, Cosine, Schedule, StepDecay
from kdsim.engines.variational import IVON, MeanField
from kdsim.experiments.experiment import Experiment
from kdsim.experiments.listed import ListedExperiments
from kdsim.study.base import Cell, Computation, Computed, Study
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.recipe import CRD, BayesianKDRecipe, Recipe
from kdsim.training.students import ImageNetwork, PointNetwork

__all__ = [
    "CRD",
    "IVON",
    "SGD",
    "Adam",
    "BayesianKDRecipe",
    "Cell",
    "Computation",
    "Computed",
    "Constant",
    "Cosine",
    "CropFlip",
    "Experiment",
    "GradientDescent",
    "ImageNetwork",
    "ListedExperiments",
    "MeanField",
    "Optimiser",
    "PointNetwork",
    "Recipe",
    "Recording",
    "Schedule",
    "StepDecay",
    "StudentTrainer",
    "Study",
    "Teacher",
]
