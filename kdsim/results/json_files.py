"""JSON files of a results folder: strict, with their own checksum, and refused where they are not ours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsim.files import CHECKSUM, Damaged, StorageError, is_intact, not_read, signed, storing
from kdsim.untrusted import read_file

STORE_VERSION = 3
"""Version of the files. Unlike `config.SCHEMA_VERSION` it is no part of a digest: older files can be brought up."""
UNSIGNED = 2
"""The version before, which had no checksums. It is read, and `run` brings it up."""


def json_ready(value: Any) -> Any:
    """The value in strict JSON: numpy and torch numbers become Python's, what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_no_link(folder: Path) -> None:
    """Refuse a folder that leads out of the results folder: that may come from somebody else."""
    with storing(folder):  # the folder around it may not be open to this user
        is_link = folder.is_symlink()
    if is_link:
        raise StorageError(f"{str(folder)!r} is a link, and is not written to: the results folder itself may be one")


def json_text(content: Any) -> str:
    """Strict JSON: what is not finite becomes null."""
    return json.dumps(json_ready(content), indent=1, allow_nan=False) + "\n"


def signed_text(content: dict[str, Any]) -> bytes:
    """A JSON file with its checksum; the content is `json_ready`."""
    return json.dumps(signed(content), indent=1, allow_nan=False).encode() + b"\n"


def read_json(file: Path, keys: dict[str, Any], advice: str, whole: Path) -> dict[str, Any]:
    """Content of cell.json or study.json.

    Args:
        keys: that it must have, and the types of their values.
        advice: begins the message of what is damaged.
        whole: what is damaged then.
    """
    try:
        info = json.loads(read_file(file))
    except OSError as error:
        raise not_read(error, f"{advice} ({file.name}: {brief(error)})", whole) from None
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{advice} ({file.name}: {brief(error)})", whole) from None
    version = info.get("schema") if isinstance(info, dict) else None
    if version is None:
        raise Damaged(f"{advice} ({file.name}: no schema version)", whole)
    if version not in (UNSIGNED, STORE_VERSION):
        raise Damaged(
            f"{file} has schema version {version!r}, this kdsim reads {UNSIGNED} and writes {STORE_VERSION}: "
            "read it with the kdsim that wrote it, or use another results folder",
            whole,
        )
    if version == STORE_VERSION and not is_intact(info):
        found = "no checksum" if CHECKSUM not in info else "its checksum is wrong: it was altered"
        raise Damaged(f"{advice} ({file.name}: {found})", whole)
    require_keys(info, keys, f"{advice} ({file.name}", whole)
    return info


def require_keys(info: Mapping[str, Any], keys: Mapping[str, Any], what: str, whole: Path) -> None:
    """Refuse a content that lacks a key, or has a value of another type; `what` begins the message, a bracket open."""
    if missing := sorted(keys.keys() - info.keys()):
        raise Damaged(f"{what}: no {', '.join(missing)})", whole)
    for key, kind in keys.items():
        if not isinstance(info[key], kind):
            raise Damaged(f"{what}: {key} = {info[key]!r:.60})", whole)


def brief(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
