"""Configurations: frozen dataclasses with validation, a JSON form, a digest and `key=value` overrides.

A configuration is a frozen dataclass whose fields are numbers, strings, tuples or
other configurations. Implementations of a contract (a problem, a supervision, ...)
carry a class attribute `name`, which is their name in JSON and on the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, wraps
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

from kdsim import data_files, setting_texts, sources, study_files

SCHEMA_VERSION = 2
"""Version of the stored form. It is part of every digest: a change of the schema reuses no old result."""

CLASS, SOURCE, FILES = "class", "source_sha256", "files_sha256"
"""Keys of the JSON form beside the fields. `class` is a keyword of Python: no field can have that name."""

MARKS = (CLASS, SOURCE, FILES)

DEEPEST = 40
"""Parts within parts of a configuration that is read."""

T = TypeVar("T")


class ConfigError(ValueError):
    """Bad input from a user: one line that says what, which value, and what is allowed."""


def error_line(error: BaseException) -> str:
    """Any error in one line: a `ConfigError` as it is, else its type and where it arose, in the study file if there."""
    lines = str(error).splitlines() or [""]
    if isinstance(error, ConfigError):
        return " ".join(lines)
    places = [(frame.f_globals.get("__name__", ""), frame.f_code.co_filename, line)
              for frame, line in traceback.walk_tb(error.__traceback__)]  # fmt: skip
    places = [place for place in places if str(place[0]).startswith(study_files.PREFIX)] or places
    where = f" ({Path(places[-1][1]).name}:{places[-1][2]})" if places else ""
    return f"{type(error).__name__}: {lines[0]}{where}"


def lacks_memory(error: BaseException) -> bool:
    """Whether there was too little memory: numpy, torch and the loader of libraries have errors of several types."""
    words = ("array is too big", "Maximum allowed dimension exceeded", "can't allocate memory", "out of memory",
             "Cannot allocate memory", "failed to map segment")  # fmt: skip
    if isinstance(error, MemoryError) or any(word in str(error) for word in words):
        return True
    before = error.__cause__ or error.__context__  # llvmlite says that a library was not found
    return isinstance(error, (OSError, ImportError)) and before is not None and lacks_memory(before)


def in_study_file(error: BaseException) -> bool:
    """Whether the error came out of code of a study file."""
    names = (str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.startswith(study_files.PREFIX) for name in names)


def require(condition: bool, what: str, value: object, allowed: str) -> None:
    """Raise `ConfigError` naming the argument, its value and what is allowed, unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{what} = {shown(value)} is not allowed: must be {allowed}")


def shown(value: object) -> str:
    """A value as a message shows it, which is one line of a length that people read."""
    text = repr(value)
    return text if len(text) <= 500 else f"{text[:400]}... ({len(text):,} characters)"


def require_positive(what: str, value: float) -> None:
    """Refuse anything but a finite number > 0 (NaN included)."""
    require(_is_number(value) and math.isfinite(value) and value > 0, what, value, "a finite number > 0")


def require_count(what: str, value: int, least: int = 1, most: int = 2**63 - 1) -> None:
    """Refuse anything but an integer from `least` to `most`; by default what a 64-bit number holds."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    require(is_integer and value >= least, what, value, f"an integer >= {least}")
    require(value <= most, what, value, f"an integer <= {most}")


def require_between(what: str, value: float, low: float, high: float, ends: str = "[]") -> None:
    """Refuse anything outside the interval from `low` to `high`; `ends` is one of "[]", "[)", "(]", "()"."""
    above = _is_number(value) and (value >= low if ends[0] == "[" else value > low)
    below = _is_number(value) and (value <= high if ends[1] == "]" else value < high)
    require(above and below, what, value, f"in {ends[0]}{low:g}, {high:g}{ends[1]}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def unknown_name(what: str, value: str, allowed: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist: names the nearest one and all that are allowed."""
    allowed = list(allowed)
    nearest = difflib.get_close_matches(value[:100], allowed, n=1)  # of long texts it would take hours
    hint = f" (nearest: {nearest[0]})" if nearest else ""
    return ConfigError(f"unknown {what} {shown(value)}{hint}; allowed: {', '.join(allowed)}")


def choose(what: str, value: str, options: Mapping[str, T]) -> T:
    """Look up `value` in `options`, or raise the error that names the nearest option."""
    if value not in options:
        raise unknown_name(what, value, options)
    return options[value]


def by_name(implementations: Iterable[type[T]]) -> dict[str, type[T]]:
    """Map each implementation's `name` to its class."""
    return {cls.name: cls for cls in implementations}


# Numbers of other libraries ---------------------------------------------------------------


class Configuration:
    """Base of the configurations: when one is built, numbers of numpy and torch become Python's, before its validation.

    So a configuration, its digest and what is computed with it are those of the same number of Python: np.int32 would
    overflow, np.float32 would round what is multiplied with it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not is_own(cls):
            with suppress(OSError, ConfigError):  # whoever asks for its digest is told
                _standing_on(cls.__module__)  # read now, as it is imported
        if "__post_init__" in cls.__dict__:
            cls.__post_init__ = _after_numbers(cls.__dict__["__post_init__"])

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if (number := python_numbers(value)) is not value:
                object.__setattr__(self, name, number)


def _after_numbers(validate: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(validate)
    def post_init(self: Any) -> None:
        Configuration.__post_init__(self)
        validate(self)

    return post_init


def python_numbers(value: Any) -> Any:
    """A number of numpy or torch (an array of no dimension) as Python's, also within tuples; all else as it is."""
    if type(value) is tuple:
        items = tuple(python_numbers(item) for item in value)
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        number = value.item()
        return number if type(number) in (bool, int, float) else value
    return value


# JSON form and digest --------------------------------------------------------------------


def encode(config: Any) -> Any:
    """JSON form of a configuration: dataclasses become `{"class": name, **fields}`, defaults included.

    A class defined outside kdsim also carries the SHA-256 of the sources that it stands on (`source_digest`), so that
    an edited noise model is another configuration; and a configuration that names files of data carries theirs
    (`kdsim.data_files`). An int in a field annotated float is written as the float that it stands for: Dirichlet(3)
    and Dirichlet(3.0) are one configuration; a number of numpy counts as Python's.
    """
    config = python_numbers(config)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        cls = type(config)
        hints = _hints(cls)
        fields = {f.name: encode(_as_float(getattr(config, f.name), hints[f.name])) for f in dataclasses.fields(cls)}
        return {CLASS: kind_of(cls), **fields, **_marks(config)}
    if isinstance(config, PurePath):
        return str(config)
    if isinstance(config, (tuple, list)):
        return [encode(item) for item in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    kind = type(config).__name__
    raise ConfigError(f"a {kind} cannot be part of a configuration: must be a number, a text, a tuple or a dataclass")


def _marks(config: Any) -> dict[str, Any]:
    """What a configuration stands on beside its fields: sources outside kdsim, and files of data."""
    cls = type(config)
    try:
        files = data_files.files_of(config, texts=not is_own(cls))
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"files of {kind_of(cls)}: {_reason(error)}") from None
    return ({} if is_own(cls) else {SOURCE: source_digest(cls)}) | ({FILES: files} if files else {})


def _reason(error: Exception) -> str:
    """What the system says of a file, with its name."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{shown(os.fsdecode(error.filename))} cannot be read: {error.strerror}"
    return f"{error}"


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The fields' types, with names resolved."""
    try:
        return typing.get_type_hints(cls)
    except Exception as error:  # an annotation is code
        raise ConfigError(f"a field of {cls.__name__} has an annotation that cannot be resolved: {error}") from None


def _as_float(value: Any, hint: Any) -> Any:
    """`value` with float for int wherever `hint` says float and not int."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    value = python_numbers(value)
    if type(value) is int:
        options = args if origin in (typing.Union, types.UnionType) else (hint,)
        return float(value) if float in options and int not in options and abs(value) <= 2**53 else value
    if origin in (typing.Union, types.UnionType):
        options = [option for option in args if typing.get_origin(option) is tuple]
        return _as_float(value, options[0]) if len(options) == 1 else value
    if origin is tuple and isinstance(value, (tuple, list)) and args:
        each = [args[0]] * len(value) if len(args) == 2 and args[1] is ... else args
        return tuple(_as_float(*pair) for pair in zip(value, each, strict=True)) if len(each) == len(value) else value
    return value


def is_own(cls: type) -> bool:
    """Whether it is one of kdsim's, rather than of a study file."""
    return cls.__module__.split(".")[0] == "kdsim"


def kind_of(cls: type) -> str:
    """Name of a configuration class in JSON."""
    return getattr(cls, "name", cls.__name__)


def source_digest(cls: type) -> str:
    """SHA-256 of all sources outside installed packages that a class stands on.

    These are the files of the class and of its bases, and everything that these import at any depth, inside functions
    too (`kdsim.study_files`, `kdsim.sources`). Of a single file it is the file's own SHA-256. Where another class of
    its module, or one of its bases, has the same name in JSON, as a subclass that states none of its own has, the
    class's name in Python counts as well. What was once imported is not read again before it is reloaded: an
    edit counts when it is run.

    Raises:
        ConfigError: it has no source file.
    """
    return _source_digest(cls)


@sources.while_imported
def _source_digest(cls: type) -> tuple[Iterable[str], str]:
    """With the names of what it stands on."""
    home = _top(cls)  # what counts also if it is installed, as a package of noise models
    own = {} if sources.is_known(home) else _standing_on(cls.__module__)
    if not any(own.values()):
        raise ConfigError(
            f"{cls.__name__} has no source file, which its results are stored under: write the class into a .py file "
            "(in a notebook: %%writefile my_classes.py) and import it from there"
        )
    tops = {_top(base): sources.is_library(_top(base)) and _top(base) != home for base in cls.__mro__}
    found = dict(own)
    for module in dict.fromkeys(base.__module__ for base in cls.__mro__ if not tops[_top(base)]):
        found |= _standing_on(module)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(found.items())}
    names = [name.strip("/") for name in sums]
    if any(kind_of(other) == kind_of(cls) for other in _others(cls)):
        sums[f"class {cls.__qualname__}"] = ""
    elif len(sums) == 1:
        return names, next(iter(sums.values()))
    return names, hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()).hexdigest()


def _others(cls: type) -> Iterator[type]:
    """The other classes of its module, and its bases, but for kdsim's own; itself, reloaded, is none."""
    beside = getattr(sys.modules.get(cls.__module__), "__dict__", {}).values()
    for other in (*beside, *cls.__mro__):
        if isinstance(other, type) and _place(other) != _place(cls) and not is_own(other):
            yield other


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _standing_on(module: str) -> dict[str, bytes]:
    """Contents of a module, and of all that it stands on."""
    file = study_files.study_file_of(module)
    return _sources_of(module) if file is None else file.standing_on(module)


def _top(cls: type) -> str:
    return cls.__module__.partition(".")[0]


@sources.while_imported
def _sources_of(module: str) -> tuple[Iterable[str], dict[str, bytes]]:
    """Contents of a module that Python imported, and of all that it stands on; empty if it has no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return [module], {}
    name = Path(file).stem if module == "__main__" else module

    def locate(other: str) -> Path | None:
        if other == name:
            return Path(file)
        return sources.locate_outside(other, home=module.partition(".")[0])

    def read(other: str, path: Path) -> bytes:
        return sources.imported(module if other == name else other, path)

    found = {name: content for name, (_, content) in sources.closure([name], locate, read).items()}
    return [module, *found], found


def decode(data: Any, classes: Iterable[type], hint: Any = Any) -> Any:
    """Inverse of `encode`: digest(decode(encode(x), classes)) = digest(x).

    Values are read by the types of the fields that they are for. No code is looked up by what the data say: they name
    classes among those that are given, and validation of these is all that runs.

    Args:
        data: the JSON form.
        classes: implementations of contracts, and any other configurations that the data may name. Classes from study
            files are told from others of their name by the SHA-256 of their file, which is part of the JSON form.
        hint: type of the result.

    Raises:
        ConfigError: a class or field is unknown or missing, or a value is not allowed.
    """
    return _decode(data, tuple(classes), hint, "the configuration", 0)


def _decode(data: Any, classes: tuple[type, ...], hint: Any, where: str, depth: int) -> Any:
    require(depth < DEEPEST, "depth", depth, f"below {DEEPEST} in {where}")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    options = args if origin in (typing.Union, types.UnionType) else (hint,)
    if isinstance(data, dict):
        return _decode_class(data, classes, options, where, depth)
    for option in options:
        if isinstance(data, list) and (option is Any or typing.get_origin(option) is tuple):
            return _decode_items(data, classes, typing.get_args(option), where, depth)
        if isinstance(data, str) and option is Path:
            return Path(data)
        if not isinstance(data, list) and _is_value(data, option):
            return _as_float(data, option)
    raise ConfigError(f"{where} = {shown(data)} is not allowed: must be {_hint_text(hint)}")


def _decode_items(data: list[Any], classes: tuple[type, ...], each: tuple[Any, ...], where: str, depth: int) -> Any:
    if not each or (len(each) == 2 and each[1] is ...):
        each = (each[0] if each else Any,) * len(data)
    require(len(each) == len(data), where, data, f"{len(each)} values")
    return tuple(_decode(item, classes, hint, where, depth + 1) for item, hint in zip(data, each, strict=True))


def _decode_class(
    data: dict[str, Any], classes: tuple[type, ...], options: tuple[Any, ...], where: str, depth: int
) -> Any:
    """A dataclass of one of the types; a type that is no contract stands for itself."""
    contracts = tuple(each for each in options if isinstance(each, type) and each is not Any) or (object,)
    plain = [each for each in contracts if dataclasses.is_dataclass(each) and not inspect.isabstract(each)]
    known = {
        kind_of(each): each
        for each in (*plain, *classes)
        if issubclass(each, contracts) and data.get(SOURCE) == (None if is_own(each) else source_digest(each))
    }
    name = str(data.get(CLASS))
    cls = choose("class", name, known)
    hints, names = _hints(cls), [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in (*names, *MARKS):
            raise unknown_name(f"field of {name}", key, names)
    if missing := [key for key in names if key not in data]:
        raise ConfigError(f"{name} in {where} has no {', '.join(missing)}")
    values = {key: _decode(data[key], classes, hints[key], f"{key} of {name}", depth + 1) for key in names}
    try:
        found = cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.init})
    except ConfigError:
        raise
    except Exception as error:  # a study file's own validation can raise anything
        raise ConfigError(f"{name} in {where}: {error_line(error)}") from error
    _require_files(name, data.get(FILES, {}), _marks(found).get(FILES, {}))
    return found


def _require_files(name: str, stored: Any, now: Mapping[str, str]) -> None:
    """Refuse a configuration whose files of data are not those with which it was stored."""
    stored = stored if isinstance(stored, dict) else {}
    for path in dict.fromkeys([*stored, *now]):
        if stored.get(path) != now.get(path):
            words = [f"SHA-256 {str(files[path])[:12]}..." if path in files else "none" for files in (stored, now)]
            raise ConfigError(f"file {shown(path)} of {name}: it was stored with {words[0]}, now there is {words[1]}")


def _is_value(data: Any, hint: Any) -> bool:
    """Whether a number, text or None in JSON is one of that type."""
    if hint is Any:
        return True
    if typing.get_origin(hint) is Literal:
        return any(type(data) is type(allowed) and data == allowed for allowed in typing.get_args(hint))
    return type(data) is hint or (hint is float and type(data) is int)


def _hint_text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def digest(config: Any) -> str:
    """Hex SHA-256 (first 20 digits) of the whole configuration, defaults and schema version included."""
    text = json.dumps([SCHEMA_VERSION, encode(config)], sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def require_told_apart(configs: Iterable[Any], what: str) -> None:
    """Refuse configurations in which two classes have the same module and name, as those that a function makes.

    Raises:
        ConfigError: there are two; the message begins with `what`.
    """
    known: dict[tuple[str, str], type] = {}
    for cls in {type(part) for config in configs for part in _parts(config)}:
        if known.setdefault((cls.__module__, cls.__qualname__), cls) is not cls:
            raise ConfigError(
                f"{what}: there are several classes {cls.__qualname__}, which nobody can tell apart: what a function "
                "makes a class of must be a field of the class"
            )


def _parts(config: Any) -> Iterator[Any]:
    """The configuration and all configurations in it."""
    if isinstance(config, (tuple, list)):
        for item in config:
            yield from _parts(item)
    elif dataclasses.is_dataclass(config):
        yield config
        for name in config.__dataclass_fields__:
            yield from _parts(getattr(config, name))


def require_unchanged(config: Any, name: str) -> None:
    """Refuse a configuration of which a source or a file of data has changed since its digest was `name`.

    Raises:
        ConfigError: it has, or this process has another one than that which runs the study.
    """
    if digest(config) != name:
        raise ConfigError(
            f"a source or file of data of {name} is not the one with which the run began: nothing is stored under "
            "its name; run the study again, on workers that see the same files and were started after the change"
        )


# Overrides --------------------------------------------------------------------------------


def override(config: T, settings: Mapping[str, str], kinds: Mapping[type, Mapping[str, type]]) -> T:
    """Return `config` with `{"key": "text", "part.key": "text"}` applied.

    Args:
        config: a frozen dataclass.
        settings: dotted keys to texts. Texts are parsed by the field's type, never evaluated.
        kinds: for a field annotated with a contract, the implementations that its text may name.
    """
    return _apply(config, "", {tuple(key.split(".")): text for key, text in settings.items()}, kinds)


def _apply(
    config: Any, prefix: str, settings: Mapping[tuple[str, ...], str], kinds: Mapping[type, Mapping[str, type]]
) -> Any:
    """All settings of one dataclass at once: it is validated with all of them, never with some."""
    hints = _hints(type(config))
    names = [f.name for f in dataclasses.fields(config) if f.init]
    changes: dict[str, Any] = {}
    parts: dict[str, dict[tuple[str, ...], str]] = {}
    for (head, *rest), text in settings.items():
        if head not in names:
            raise unknown_name("key", prefix + ".".join([head, *rest]), [prefix + name for name in names])
        if rest:
            parts.setdefault(head, {})[tuple(rest)] = text
        else:
            changes[head] = _parse(prefix + head, text, hints[head], kinds)
    for head, inner in parts.items():  # after `problem=digits` comes `problem.samples=500`
        part = changes.get(head, getattr(config, head))
        if not dataclasses.is_dataclass(part):
            key = prefix + ".".join([head, *next(iter(inner))])
            raise ConfigError(f"key {key!r}: {head} = {part!r} has no parts")
        changes[head] = _apply(part, f"{prefix}{head}.", inner, kinds)
    return dataclasses.replace(config, **changes)


def _parse(key: str, text: str, hint: Any, kinds: Mapping[type, Mapping[str, type]]) -> Any:
    """Parse `text` as a value of type `hint`."""
    if hint in kinds:
        return choose(key, text, kinds[hint])()
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() == "none":
            return None
        errors = []
        for option in (arg for arg in args if arg is not type(None)):
            try:
                return _parse(key, text, option, kinds)
            except ConfigError as error:
                errors.append(error)
        raise errors[-1]
    if origin is Literal:
        return choose(f"{key} =", text, {str(allowed): allowed for allowed in args})
    if origin is tuple:
        parts = _read(key, text, setting_texts.items)
        each = (args[0],) * len(parts) if len(args) == 2 and args[1] is ... else args
        require(len(parts) == len(each), key, text, f"{len(each)} values with commas between them")
        return tuple(_parse(key, part, kind, kinds) for part, kind in zip(parts, each, strict=True))
    if hint is bool:
        return choose(f"{key} =", text.lower(), {"true": True, "false": False, "yes": True, "no": False})
    if hint in (int, float):
        return _read(key, text, setting_texts.integer if hint is int else setting_texts.number)
    if hint is str:
        return text
    if hint is Path:
        return _read(key, text, setting_texts.path)
    raise ConfigError(f"key {key!r} cannot be set from text; set its parts ({key}.NAME=VALUE) or write a study file")


def _read(key: str, text: str, reader: Callable[[str], T]) -> T:
    """What a function of `kdsim.setting_texts` makes of a text."""
    try:
        return reader(text)
    except ValueError as error:
        raise ConfigError(f"{key} = {shown(text)} is not allowed: {error}") from None
