"""Files of tensors as kdsim 1 wrote them, with `torch.save`: they are read, and no longer written.

Nothing here executes anything. They are read by `torch.load(weights_only=True)`, which calls nothing that it does not
know, but takes the time and the memory that the file asks for; `require_plain` looks at the file first.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterable
from typing import Any

import torch

HEAD = b"kdsim 1 sha256 "
"""First bytes of such a file; after them the SHA-256 of the rest in hexadecimal digits, and a line feed."""
FORMAT = 1
LARGEST_PICKLE = 5_000_000
"""Parts of the object in a pickle, those counted again that occur in several places."""

_TYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
PLAIN = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in _TYPES),
)
"""Names in a file of tensors on a CPU and plain values."""


def unpickled(data: bytes) -> Any:
    """The content of such a file after its first line.

    Raises:
        ValueError: it holds more than tensors and plain values; what `torch.load` raises of a foreign one.
    """
    require_plain(data)
    content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    require_tensors(content)
    return content


def require_plain(data: bytes) -> None:
    """Refuse what `torch.save` does not write of tensors and plain values.

    The file must unpack to no more than its length, its pickle may name nothing but tensors, and the object in it may
    not be larger than `LARGEST_PICKLE`: a hundred bytes can describe one with 2^60 parts, to be hashed or printed.

    Raises:
        ValueError: one of these; the message says which.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > len(data):
                raise ValueError(f"it unpacks to {size:,} bytes, more than it has")
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    _require_small(archive.read(entry))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is no file of tensors ({error})") from None


def require_tensors(content: Any) -> None:
    """Refuse tensors that claim more numbers than their file has, or are of a type beside the plain one.

    Raises:
        ValueError: there is one.
    """
    if isinstance(content, dict):
        content = [*content.keys(), *content.values()]
    if isinstance(content, (list, tuple)):
        for item in content:
            require_tensors(item)
    elif isinstance(content, torch.Tensor):
        if type(content) is not torch.Tensor or content.layout != torch.strided or content.device.type != "cpu":
            raise ValueError("it has a tensor of a special kind")
        if content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError(f"it has a tensor of {content.numel():,} numbers, and not as many bytes")


class _Part:
    """An object that a pickle makes: what it is, its size, and whether it is part of another one."""

    def __init__(self, kind: str, parts: Iterable[_Part] = ()) -> None:
        self.kind, self.size, self.used = kind, 1, False
        self.add(parts)

    def add(self, parts: Iterable[_Part]) -> None:
        for part in parts:
            part.used = True
            self.size += part.size
        if self.size > LARGEST_PICKLE:
            raise ValueError(f"its content has more than {LARGEST_PICKLE:,} parts")


_MARK = object()
_MAPPINGS = ("EMPTY_DICT", "collections OrderedDict()")
_FILLS = {
    "APPEND": ("EMPTY_LIST",), "APPENDS": ("EMPTY_LIST",), "SETITEM": _MAPPINGS, "SETITEMS": _MAPPINGS,
    "BUILD": _MAPPINGS[1:],
}  # fmt: skip
"""Instructions that put something into an object, and which objects take it: into a tensor they would write numbers."""


def _require_small(pickle: bytes) -> None:
    """Go through the instructions of a pickle with sizes in place of objects."""
    stack: list[_Part | object] = []
    memory: dict[int, _Part] = {}
    for instruction, argument, _ in pickletools.genops(pickle):
        name = instruction.name
        if name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"it has the instruction {name}")
        if name == "GLOBAL" and argument not in PLAIN:
            raise ValueError(f"it names {argument:.100}")
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memory[len(memory) if argument is None else argument] = _top(stack)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            if argument not in memory:
                raise ValueError("it refers to what it does not hold")
            stack.append(memory[argument])
        elif instruction.stack_before or instruction.stack_after:
            _step(stack, f"{argument}" if name == "GLOBAL" else name, instruction)


def _step(stack: list[_Part | object], name: str, instruction: pickletools.OpcodeInfo) -> None:
    """Take what the instruction takes, and leave one part for what it leaves."""
    taken: list[_Part] = []
    before = [kind.name for kind in instruction.stack_before]
    if "mark" in before:
        while stack and stack[-1] is not _MARK:
            taken.append(_pop(stack))
        if not stack:
            raise ValueError("it has an instruction without its mark")
        stack.pop()
        before = before[: before.index("mark")]
    if name in _FILLS:
        taken += [_pop(stack) for _ in before[1:]]
        target = _top(stack)
        if target.kind not in _FILLS[name]:
            raise ValueError(f"it has the instruction {name} for what does not take it")
        if target.used:  # its size has been counted
            raise ValueError("it changes what is part of something else")
        target.add(taken)
        return
    taken += [_pop(stack) for _ in before]
    if instruction.stack_after:
        # A call takes its arguments and, below them, what is called.
        stack.append(_Part(f"{taken[-1].kind}()" if name == "REDUCE" else name, taken))


def _top(stack: list[_Part | object]) -> _Part:
    if not stack or not isinstance(stack[-1], _Part):
        raise ValueError("it has an instruction without its arguments")
    return stack[-1]


def _pop(stack: list[_Part | object]) -> _Part:
    found = _top(stack)
    stack.pop()
    return found
