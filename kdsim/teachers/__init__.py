"""Teachers: trained networks that stand where a supervision does. One file a kind."""

from kdsim.teachers.deterministic import Deterministic
from kdsim.teachers.ensemble import DeepEnsemble
from kdsim.teachers.laplace import Laplace
from kdsim.teachers.mc_dropout import MCDropout
from kdsim.teachers.mcmi import MCMI
from kdsim.teachers.mse import MSELogitsTeacher, MSETeacher
from kdsim.teachers.swag import SWAG
from kdsim.teachers.temperature_scaled import TemperatureScaled
from kdsim.teachers.variational import Variational
from kdsim.trainer import Teacher

TEACHERS = (
    Deterministic,
    TemperatureScaled,
    MSETeacher,
    MSELogitsTeacher,
    DeepEnsemble,
    Laplace,
    Variational,
    MCDropout,
    SWAG,
    MCMI,
)
"""Every teacher, in the order in which messages list them."""

__all__ = [
    "MCMI",
    "SWAG",
    "TEACHERS",
    "DeepEnsemble",
    "Deterministic",
    "Laplace",
    "MCDropout",
    "MSELogitsTeacher",
    "MSETeacher",
    "Teacher",
    "TemperatureScaled",
    "Variational",
]
