"""Where a stored result comes from: the source of kdsim, the points and the files of data that it was computed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from kdsim.config import FILES
from kdsim.data_files import BESIDE, sha256_of
from kdsim.sources import kdsim_digest

POPULATION = "population"
"""Key of cell.json under which the fingerprint of its data stands."""
TEACHER_SOURCE = "teacher_source"
"""Key of cell.json under which the source of kdsim stands that trained the teacher, in a student's and a teacher's."""
SHOWN = 12
"""Digits of a digest in rows and lines."""
TOLERANCE = 1e-9
"""Difference of a projection, in norms of the tensor, that rounding may make."""

Fingerprint = dict[str, Any]
"""What tells one population from another, see `kdsim.fingerprint`."""


# The source of kdsim ------------------------------------------------------------------------------


def source_of(info: Mapping[str, Any]) -> str:
    """Digest of the source of kdsim that computed a stored result, from the content of its cell.json; "" if unknown."""
    versions = info.get("versions")
    return str(versions.get("source_sha256") or "") if isinstance(versions, Mapping) else ""


def sources_of(info: Mapping[str, Any]) -> tuple[str, ...]:
    """`source_of` a result, and of the training of its teacher if it has one."""
    return source_of(info), *([str(info[TEACHER_SOURCE])] if TEACHER_SOURCE in info else [])


def other_sources(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """How many stored rows another source of kdsim computed, in one line; None if there are none."""
    own = kdsim_digest()[:SHOWN]
    others = [row.get("source") or "not known" for row in rows if row.get("source") != own]
    if not others:
        return None
    return (
        f"{counted(others)} computed by another source of kdsim ({', '.join(sorted(set(others)))}; this is {own}): "
        "run-study --rerun runs them again"
    )


def counted(digests: Sized) -> str:
    """So many stored results, as the begin of a sentence in the past."""
    return f"{len(digests)} stored result{'s were' if len(digests) != 1 else ' was'}"


# Points -------------------------------------------------------------------------------------------


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two fingerprints, as they are stored, are of one population but for rounding.

    What is no fingerprint is like no other.
    """
    if one.get("sha256") == other.get("sha256") is not None:
        return True
    if one.keys() != other.keys() or len(one) < 2:
        return False
    try:
        return all(_alike(one[name], other[name]) for name in one if name != "sha256")
    except (KeyError, TypeError, AttributeError):
        return False


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if "projections" not in one:  # one of several populations
        return same(one, other)
    pairs = zip(one["projections"], other["projections"], strict=True)
    limit = TOLERANCE * max(one["norm"], other["norm"])
    return one["shape"] == other["shape"] and all(abs(a - b) <= limit for a, b in pairs)


# Files of data ------------------------------------------------------------------------------------


def changed_files(infos: Iterable[Mapping[str, Any]]) -> list[str]:
    """Files of data that stored cells name and that are others now. What is absent, as from another folder, is not.

    Args:
        infos: contents of their cell.json.
    """
    named = dict.fromkeys(pair for info in infos for pair in files_of(info["cell"]))
    return list(dict.fromkeys(path for path, before in named if sha256_now(path) not in (None, before)))


def files_of(encoded: Any) -> Iterator[tuple[str, str]]:
    """Path and SHA-256 of all files of data that a stored configuration names, but for those beside a study file."""
    files = encoded.get(FILES) if isinstance(encoded, Mapping) else None
    if isinstance(files, Mapping):
        pairs = ((str(path), str(digest)) for path, digest in files.items())
        yield from (pair for pair in pairs if not pair[0].startswith(BESIDE))
    for part in encoded.values() if isinstance(encoded, Mapping) else encoded if isinstance(encoded, list) else ():
        yield from files_of(part)


def sha256_now(path: str) -> str | None:
    """SHA-256 of a file as it is; None if it cannot be read."""
    try:
        return sha256_of(Path(path))
    except (OSError, ValueError):
        return None
