# The public API, and where each name of it is defined: `kdsim/__init__.py` imports a name from there when it is used.
from . import data as data
from . import experiments as experiments
from . import figures as figures
from . import losses as losses
from . import networks as networks
from . import problems as problems
from . import students as students
from . import studies as studies
from . import supervision as supervision
from . import teachers as teachers
from . import theory as theory
from .api.comparing import Comparison as Comparison
from .api.comparing import compare as compare
from .api.loading import load as load
from .api.loading import runs as runs
from .api.results import Result as Result
from .api.running import Interrupted as Interrupted
from .api.running import predict as predict
from .api.running import run as run
from .api.running import simulate as simulate
from .api.warning import KdsimWarning as KdsimWarning
from .config import ConfigError as ConfigError
from .experiments.experiment import Experiment as Experiment
from .population import Population as Population
from .study.base import Study as Study

__version__: str
