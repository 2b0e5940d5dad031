"""Files of tensors and plain values, which notice when they were altered: safetensors, which any program reads.

The tensors stand in the file under numbers. Its metadata has, under `kdsim`, JSON of what they are part of
(dictionaries, lists, tuples, numbers, texts) and the SHA-256 of that, of the tensors' header, and of their bytes. A
tensor keeps the order of its strides, as of kernels that lie channels last: what is read is, bit for bit, what was
written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors

from kdsim import pickled_tensors
from kdsim.files import Damaged, not_read, sha256, storing, write_bytes
from kdsim.untrusted import read_file

FORMAT, SUFFIX = 2, ".safetensors"
OLD_SUFFIX = ".pt"
"""Of files of kdsim 1, see `kdsim.pickled_tensors`."""
_METADATA, _KEY = "__metadata__", "kdsim"
_LENGTH = 8
"""Bytes of the length of the header, which stand before it."""


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values to a file, whole or not at all.

    `read_checked` notices every later change of the file.

    Raises:
        StorageError: it cannot be written.
        TypeError: the content has something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_encoded(dict(content), tensors, set()), separators=(",", ":"))
    bare = safetensors.save(tensors)
    length = int.from_bytes(bare[:_LENGTH], "little")
    header, data = json.loads(bare[_LENGTH : _LENGTH + length]), memoryview(bare)[_LENGTH + length :]
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, head_of(header, text, data), data)


def head_of(header: Mapping[str, Any], text: str, data: bytes | memoryview) -> bytes:
    """What stands in a file before the bytes of its tensors.

    Args:
        header: of safetensors: name to type, shape and place of each tensor.
        text: JSON of what they are part of.
        data: their bytes.
    """
    said = json.dumps({"format": FORMAT, "sha256": _checksum(header, text, data), "content": text})
    head = json.dumps({_METADATA: {_KEY: said}, **header}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _LENGTH)  # the tensors' bytes begin at a multiple of eight
    return len(head).to_bytes(_LENGTH, "little") + head


def read_checked(path: Path) -> dict[str, Any]:
    """What `write_checked` wrote, here or in kdsim 1; no code in the file is run.

    Raises:
        Damaged: the file is missing, truncated, altered, of another format or something else.
    """
    try:
        whole = read_file(path)
    except OSError as error:
        raise not_read(error, f"{path} cannot be read: {error.strerror}", path) from None
    if whole.startswith(pickled_tensors.HEAD):
        return _read_old(path, whole)
    try:
        length = int.from_bytes(whole[:_LENGTH], "little")
        header = json.loads(whole[_LENGTH : _LENGTH + length])
        said = json.loads(header.pop(_METADATA)[_KEY])
        format_, expected, text = said["format"], said["sha256"], said["content"]
        found = _checksum(header, text, memoryview(whole)[_LENGTH + length :])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _not_ours(path) from None
    if format_ != FORMAT:
        raise Damaged(f"{path} has another format than {FORMAT}: read it with the kdsim that wrote it", path)
    _require_same(path, expected, found)
    try:
        content = _decoded(json.loads(text), safetensors.load(whole))
        if not isinstance(content, dict):
            raise ValueError("it is no dictionary")
    except Exception as error:  # a hostile file makes the reader raise almost anything
        raise _foreign(path, error) from None
    return content


def _read_old(path: Path, whole: bytes) -> dict[str, Any]:
    """The content of a file of kdsim 1."""
    end = len(pickled_tensors.HEAD) + 64
    if whole[end : end + 1] != b"\n":
        raise _not_ours(path)
    data = whole[end + 1 :]
    _require_same(path, whole[len(pickled_tensors.HEAD) : end].decode("ascii", "replace"), sha256(data))
    try:
        content = pickled_tensors.unpickled(data)
    except Exception as error:  # a hostile or foreign file makes the reader raise almost anything
        raise _foreign(path, error) from None
    if not isinstance(content, dict) or content.get("format") != pickled_tensors.FORMAT:
        raise Damaged(f"{path} has another format: read it with the kdsim that wrote it", path)
    return {name: value for name, value in content.items() if name != "format"}


def _not_ours(path: Path) -> Damaged:
    return Damaged(f"{path} is not a file of kdsim, or its first bytes are lost: delete it to start over", path)


def _require_same(path: Path, expected: Any, found: str) -> None:
    if found != expected:
        why = f"its SHA-256 is {found[:12]}..., it should be {str(expected)[:12]}..."
        raise Damaged(f"{path} is truncated or altered: {why}; delete it to start over", path)


def _foreign(path: Path, error: Exception) -> Damaged:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return Damaged(f"{path} holds more than tensors and plain values, and is not read: {line:.200}", path)


def _checksum(header: Mapping[str, Any], text: str, data: bytes | memoryview) -> str:
    """SHA-256 of everything in the file but for itself."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for part in (b"\0", text.encode(), b"\0", data):
        found.update(part)
    return found.hexdigest()


# What the tensors are part of: a list of a letter and a value for each that JSON does not have ------


def _encoded(value: Any, tensors: dict[str, torch.Tensor], storages: set[int]) -> Any:
    if isinstance(value, torch.Tensor):
        return ["t", *_kept(value, tensors, storages)]
    if isinstance(value, Mapping):
        return ["d", [[_plain(key), _encoded(item, tensors, storages)] for key, item in value.items()]]
    if isinstance(value, (list, tuple)):
        return ["l" if isinstance(value, list) else "u", [_encoded(item, tensors, storages) for item in value]]
    return _plain(value)


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a file of tensors and plain values cannot hold a {type(value).__name__}")


def _kept(tensor: torch.Tensor, tensors: dict[str, torch.Tensor], storages: set[int]) -> tuple[str, list[int]]:
    """Its number, and the order of its dimensions in memory; none but their own where they overlap."""
    tensor = tensor.detach().cpu()
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda axis: -strides[axis])
    if not tensor.permute(order).is_contiguous():
        order = list(range(tensor.dim()))
    kept = tensor.permute(order).contiguous()
    storage = kept.untyped_storage()
    if storage.nbytes() != kept.numel() * kept.element_size() or storage.data_ptr() in storages:
        kept = kept.clone()  # a part of another, or twice the same
        storage = kept.untyped_storage()
    storages.add(storage.data_ptr())
    number = str(len(tensors))
    tensors[number] = kept
    return number, order


def _decoded(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, list):
        return value
    kind, inner, *order = value
    if kind == "t":
        (order,) = order
        back = sorted(range(len(order)), key=order.__getitem__)
        return tensors[inner].permute(back)
    if kind == "d":
        return {key: _decoded(item, tensors) for key, item in inner}
    items = [_decoded(item, tensors) for item in inner]
    return {"l": items, "u": tuple(items)}[kind]
