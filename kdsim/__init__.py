"""kdsim: SGD with Bayes class probabilities, simulated and held against its theory.

    import kdsim as kd

    result = kd.run(kd.studies.NoiseSweep(problem=kd.problems.Digits()), out="results")
    result.frame
    result.plot()

Everything is imported when it is first used: `import kdsim` alone loads neither torch nor pandas. What there is, and
where it is defined, stands in `__init__.pyi`; docs/api.md has worked examples.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
