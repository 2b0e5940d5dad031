"""Teachers: trained networks that stand where a supervision does. One file a kind."""

from kdsim.teachers.deterministic import Deterministic

TEACHERS = (Deterministic,)
"""Every teacher, in the order in which messages list them."""

__all__ = ["TEACHERS", "Deterministic"]
