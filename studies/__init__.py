"""Studies that come with kdsim: declarations of what to simulate, one a file."""

from kdsim.studies.noise_sweep import NoiseSweep

STUDIES = (NoiseSweep,)

__all__ = ["STUDIES", "NoiseSweep"]
