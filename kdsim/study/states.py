"""States of engines and finished blocks among the work under way, from which a simulation goes on bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from kdsim.engines.base import State
from kdsim.engines.recorder import Record
from kdsim.files import Damaged
from kdsim.results.unfinished import Unfinished, unusable
from kdsim.study.work import Ended
from kdsim.tensors import read_checked, write_checked


def write_state(unfinished: Unfinished, key: str, engine: str, state: State, seconds: float) -> None:
    """Save the state of a block that runs on an engine, and the time that it took so far."""
    content = {"key": key, "engine": engine, "state": dict(vars(state)), "seconds": seconds}
    write_checked(unfinished.state_file(key), content)


def read_state(unfinished: Unfinished, key: str, engine: str | None) -> tuple[State | None, float]:
    """The state in which a block was left and the seconds that it had taken; (None, 0.0) if there is none.

    Args:
        engine: that is to go on with it: another one would take it as well, and give other bits; None is any.

    Raises:
        Damaged: there is one that cannot be used.
    """
    file = unfinished.state_file(key)
    if not file.exists():
        return None, 0.0
    content = _read(file, key, engine)
    try:
        state = State(**content["state"])
        if type(state.step) is not int or state.step < 0:
            raise TypeError(f"step is {state.step!s:.40}")
        return state, float(content["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(file, error) from None


def write_block(unfinished: Unfinished, key: str, engine: str, block: Ended) -> None:
    """Keep a finished block until the cells of its pack are stored."""
    content = {"record": dict(vars(block.record)), "parameters": block.parameters, "seconds": block.seconds}
    marks = json.dumps(block.marks)
    write_checked(unfinished.block_file(key), {"key": key, "engine": engine, "marks": marks, **content})
    unfinished.state_file(key).unlink(missing_ok=True)


def read_block(unfinished: Unfinished, key: str, engine: str) -> Ended | None:
    """What `write_block` kept of a block on that engine, or None.

    Raises:
        Damaged: there is one that cannot be used.
    """
    file = unfinished.block_file(key)
    if not file.exists():
        return None
    content = _read(file, key, engine)
    try:
        parameters = content["parameters"]
        if parameters is not None and not isinstance(parameters, torch.Tensor):
            raise TypeError(f"parameters are {type(parameters).__name__}")
        marks = json.loads(content["marks"])
        if not isinstance(marks, dict):
            raise TypeError(f"marks are {type(marks).__name__}")
        return Ended(Record(**content["record"]), parameters, float(content["seconds"]), marks)
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(file, error) from None


def _read(file: Path, key: str, engine: str | None) -> dict[str, Any]:
    """Content of a state or block, which must be that of this key and, unless None, of this engine."""
    content = read_checked(file)
    for name, own in (("key", key), ("engine", engine)):
        found = content.get(name)
        if own is not None and not (isinstance(found, str) and found == own):
            raise Damaged(f"{file} is of {name} {found!s:.40}, not of {own}: delete it to start over", file)
    return content
