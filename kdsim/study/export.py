"""A problem's pool as a file that any program reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from kdsim.config import ConfigError, encode
from kdsim.files import temporary_beside
from kdsim.problems.base import Problem, drawn


def export(problem: Problem, seed: int, file: Path) -> dict[str, np.ndarray]:
    """Write the pool to an .npz file and return what was written.

    x (N, d) and p (N, K) float64, theta_star (K, d) float64 and y (N,) int64 where the problem has them; name, seed
    and settings (JSON) as text and number. `numpy.load` needs no pickle.

    Raises:
        ConfigError: the file cannot be written.
    """
    population = drawn(problem, seed)
    tensors = {"x": population.x, "p": population.p, "theta_star": population.optimum, "y": population.y}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
    texts = {"name": problem.name, "seed": seed, "settings": json.dumps(encode(problem))}
    content = arrays | {name: np.array(value) for name, value in texts.items()}
    try:
        with temporary_beside(file) as temporary:
            with open(temporary, "wb") as stream:
                np.savez(stream, **content)
            temporary.replace(file)
    except OSError as error:
        raise ConfigError(f"{str(file)!r} cannot be written: {error.strerror}") from None
    return content
