"""Any torch.nn.Module as a student: its parameters as one flat vector a replica, its starts from kdsim's own draws."""

from __future__ import annotations

import copy
import math
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from kdsim.config import ConfigError, error_line, kind_of, require
from kdsim.rng import Draws, Stream
from kdsim.students.base import LinearStudent
from kdsim.students.network import NetworkStudent, unflatten
from kdsim.students.softmax_regression import SoftmaxRegression

T = TypeVar("T")


@dataclass(frozen=True)
class ModuleStudent(NetworkStudent):
    """A student whose outputs are those of a module. Subclasses are frozen dataclasses that return it from `module`.

    The flat vector holds the module's parameters in the order of `named_parameters`, but for those that require no
    gradient: they and the buffers are constants. What a module draws while it is built is the same each time. It must
    map each x of a batch (b, d) to outputs (b, K) on its own, with nothing random and no buffer that training
    updates; a module that does not is refused.
    """

    head: ClassVar[LinearStudent] = SoftmaxRegression()

    @abstractmethod
    def module(self, features: int, classes: int) -> nn.Module:
        """The module for inputs of `features` numbers and `classes` outputs. Its initial values are not used.

        Its number of parameters must be affine in `classes`, as it is for one last layer.
        """

    def interval(self, owner: nn.Module, name: str, parameter: Tensor) -> tuple[float, float]:
        """(low, high) between which the entries of a parameter start, uniformly and independently.

        By default what PyTorch does: Linear and convolutions (also transposed) within +-1/sqrt(fan-in), weights and
        biases alike; the weight of a normalisation is 1, its bias 0. Override it for other starts.

        Args:
            owner: the submodule that has the parameter.
            name: its name there, such as "weight".
            parameter: of the right shape; its values mean nothing.

        Raises:
            ConfigError: a parameter of another kind of module.
        """
        if isinstance(owner, (nn.Linear, _ConvNd)):
            bound = owner.weight[0].numel() ** -0.5  # torch takes the second axis for the inputs, transposed or not
            return -bound, bound
        if isinstance(owner, (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
            return (1.0, 1.0) if name == "weight" else (0.0, 0.0)
        what = f"student {kind_of(type(self))!r}: no start is known for {name!r} of {type(owner).__name__}"
        raise ConfigError(f"{what}; override {type(self).__name__}.interval")

    def shapes(self, features: int, classes: int) -> list[tuple[tuple[int, ...], float]]:
        built = _build(self, features, classes)
        return [
            (tuple(shape), (high - low) / 12**0.5)  # the standard deviation of a uniform
            for shape, (low, high) in zip(built.shapes, built.intervals, strict=True)
        ]

    def initial(self, features: int, classes: int, seed: Tensor, replica: Tensor) -> Tensor:
        """Independent uniform starts within each parameter's `interval`, (R, P) float64, from (seed, replica) alone."""
        built = _build(self, features, classes)
        sizes = torch.tensor([shape.numel() for shape in built.shapes])
        ends = torch.tensor(built.intervals, dtype=torch.float64).repeat_interleave(sizes, 0).to(seed.device)  # (P, 2)
        visit = torch.arange(len(ends), device=seed.device)[None]
        draws = Draws(seed, replica, visit, Stream.INIT, torch.float64, start=0)
        return ends[:, 0] + (ends[:, 1] - ends[:, 0]) * draws.uniform(0)

    def outputs(self, parameters: Tensor, x: Tensor) -> Tensor:
        features = x.shape[-1]
        built = _build(self, features, _classes(self, features, parameters.shape[-1]))
        values = dict(zip(built.names, unflatten(parameters, built.shapes), strict=True))
        constants = built.constants(parameters.dtype, parameters.device)
        return torch.func.functional_call(built.module_of_thread(), values | constants, (x,))


class _Built:
    """A module taken apart.

    Attributes:
        names, shapes, intervals: of the parameters, in the order of the flat vector.
    """

    def __init__(self, student: ModuleStudent, features: int, classes: int) -> None:
        self.module = _new_module(student, features, classes)
        owners: dict[str, tuple[nn.Module, str]] = {}
        for prefix, owner in self.module.named_modules():
            own = owner.named_parameters(prefix, recurse=False)
            owners |= {full: (owner, full.removeprefix(f"{prefix}.") if prefix else full) for full, _ in own}
        trained = _trained(self.module)
        self.names = list(trained)
        self.shapes = [parameter.shape for parameter in trained.values()]
        self.intervals = [student.interval(*owners[name], parameter) for name, parameter in trained.items()]
        for name, (low, high) in zip(self.names, self.intervals, strict=True):
            require(-math.inf < low <= high < math.inf, f"interval of {name}", (low, high), "finite, low <= high")
        tensors = [*self.module.named_parameters(), *self.module.named_buffers()]
        self._fixed = {name: tensor.detach() for name, tensor in tensors if name not in trained}
        self._fixed_as: dict[tuple[torch.dtype, torch.device], dict[str, Tensor]] = {}
        self._of_thread = threading.local()

    def constants(self, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Buffers and parameters that are not trained; those that are floating in the given type."""
        if (dtype, device) not in self._fixed_as:
            self._fixed_as[dtype, device] = _apart(
                lambda: {
                    name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else tensor.dtype)
                    for name, tensor in self._fixed.items()
                }
            )
        return self._fixed_as[dtype, device]

    def module_of_thread(self) -> nn.Module:
        """A copy for each thread: `functional_call` exchanges the module's own tensors while it runs."""
        if not hasattr(self._of_thread, "module"):
            self._of_thread.module = _apart(lambda: copy.deepcopy(self.module))
        return self._of_thread.module


@lru_cache(maxsize=8)
def _build(student: ModuleStudent, features: int, classes: int) -> _Built:
    """The module, if it can be a student."""

    def build() -> _Built:
        built = _Built(student, features, classes)
        if fault := _fault(copy.deepcopy(built.module).double(), features, classes):
            raise ConfigError(f"student {kind_of(type(student))!r}: its module {fault}")
        _classes(student, features, sum(shape.numel() for shape in built.shapes))  # `outputs` will ask for it
        return built

    return _apart(build)


@lru_cache(maxsize=8)
def _classes(student: ModuleStudent, features: int, size: int) -> int:
    """The number of classes with which the module has `size` parameters."""

    def parameters(classes: int) -> int:
        return sum(parameter.numel() for parameter in _trained(_new_module(student, features, classes)).values())

    two, three = _apart(lambda: (parameters(2), parameters(3)))
    classes = 2 + (size - two) // (three - two) if three > two else 0
    if classes < 1 or two + (classes - 2) * (three - two) != size:
        counts = f"{two} parameters for 2 classes and {three} for 3"
        raise ConfigError(
            f"student {kind_of(type(student))!r}: its module has {counts}, and so {size} for no number of classes: "
            "their number must grow by the same for each class"
        )
    return classes


def _apart(function: Callable[[], T]) -> T:
    """The result of a function called in a thread of its own, where no transform of torch.func is under way."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _new_module(student: ModuleStudent, features: int, classes: int) -> nn.Module:
    """What `module` returns, built from one state of torch's generator, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            module = student.module(features, classes)
        except ConfigError:
            raise
        except Exception as error:  # a user's own code can raise anything
            raise ConfigError(f"student {kind_of(type(student))!r}: module: {error_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"student {kind_of(type(student))!r}: module must return an nn.Module, it returned {module!r}"
        )
    return module.train()


def _fault(module: nn.Module, features: int, classes: int) -> str | None:
    """Why a module (in float64; it is changed) cannot be a student, found by calling it; or None."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, features, generator=generator, dtype=torch.float64)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for parameter in module.parameters():  # where all start at zero no dependence would show
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64) - 0.4)
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        try:
            outputs, again, part = module(x), module(x), module(x[:3])
        except Exception as error:  # a user's own code can raise anything
            return f"fails on inputs of shape {tuple(x.shape)}: {error_line(error)}"
        changed = [name for name, buffer in module.named_buffers() if not torch.equal(buffer, before[name])]
    if changed:
        what = f"has buffers that training updates ({', '.join(changed)})"
        return f"{what}: they would be shared by all replicas; use GroupNorm or LayerNorm, or fixed statistics"
    if getattr(outputs, "shape", None) != (len(x), classes):
        shape = tuple(getattr(outputs, "shape", ())) or type(outputs).__name__
        return f"maps inputs of shape {tuple(x.shape)} to {shape}: must be {(len(x), classes)}"
    if not torch.equal(outputs, again) or _drops(module):
        return "is random (dropout?): a replica's random numbers must depend on its seed and number alone"
    if not torch.allclose(outputs[:3], part, rtol=1e-9, atol=1e-12):
        return "gives outputs that depend on the rest of the batch: each must be a function of its own x"
    return None


def _drops(module: nn.Module) -> bool:
    return any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 for part in module.modules())
