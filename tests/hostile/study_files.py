"""Surface: study files whose values, cells, classes or functions are not what they should be.

The file's own code is trusted; what it hands to kdsim is not.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import tiny_study

from hostile.harness import Box, Case

NOISE = (
    "None", "float('nan')", "float('inf')", "-float('inf')", "-1", "0", "0.0", "-0.0", "1", "True", "10**400",
    "2**63", "1e308",
    "1e-308", "'0.05'", "''", "b'x'", "[1]", "[]", "()", "(1, 2)", "{}", "{1}", "1j", "object()", "lambda: 1", "int",
    "Cell", "...",
    "np.float32(0.05)", "np.float64('nan')", "np.int64(3)", "np.array([1.0, 2.0])", "np.array(3)", "np.bool_(True)",
    "torch.tensor(0.05)", "torch.tensor([1.0, 2.0])", "torch.tensor(float('nan'))", "torch.ones(3, device='meta')",
    "SmallPool", "SmallPool()", "Exact()", "OneHot", "[Exact()]", "(Exact(), None)", "(None,)", "('one-hot',)",
    "SoftmaxRegression(0.1)", "SGD(10)", "Recording()", "type('T', (), {})()", "__import__('decimal').Decimal('0.05')",
    "__import__('fractions').Fraction(1, 3)", "range(3)", "(x for x in (1,))", "'\\ud800'", "'a\\nb'", "'x' * 100_000",
    "Path('x')", "type('Number', (float,), {})(0.05)", "type('Count', (int,), {})(3)",
)  # fmt: skip
"""Expressions, put in where a value is expected."""
TENSORS = (
    "None", "torch.zeros(0, 3)", "torch.zeros(64)", "torch.full((64, 4), float('nan'))", "torch.ones(64, 4)",
    "torch.ones(3, 3)",
    "torch.ones(64, 4).double() * 1e300", "torch.ones(64, 4, dtype=torch.int64)", "'x'", "[[1.0]]",
    "np.ones((64, 4))", "5",
    "torch.ones(64, 4, dtype=torch.complex64)", "torch.ones(64, 4).to_sparse()", "torch.ones(64, 4, device='meta')",
    "torch.ones(64, 4, 1)", "torch.ones(1, 1).expand(10**12, 4)",
)  # fmt: skip
CELL_FIELDS = (
    "problem",
    "student",
    "supervision",
    "step_size",
    "sgd",
    "recording",
    "replicas",
    "seed",
    "engine",
    "device",
)
SGD_FIELDS = ("steps", "batch_size", "index", "targets", "optimiser", "schedule", "dtype", "no_such")
RECORDING_FIELDS = ("checkpoints", "tail_stride", "tail_fraction", "directions", "mean_error")
RETURNS = (
    "None", "5", "'abc'", "[]", "()", "(None,)", "[first]", "(first, None)", "(first, first)", "first", "(Cell,)",
    "iter((first,))",
    "{first}", "{'a': first}", "(first, self)", "(1, 2)", "1 / 0", "(_ for _ in ()).throw(KeyError('x'))", "exit(3)",
    "[first] * 3", "(replace(first, replicas=10**18),)", "(replace(first, seed=first.seed + 1), first)",
    "np.array([first])",
)  # fmt: skip
NAMES = ("'../../x'", "''", "'.'", "'..'", "'a/b'", "'/tmp/x'", "5", "None", "'cells'", "'claims'", "'x' * 300",
         "'a\\x00b'", "'é'",
         "'noise-sweep'", "b'tiny'", "['tiny']", "'tiny\\n'", "'-x'")  # fmt: skip
FIGURES = ("None", "5", "'no-such'", "'noise-sweep'", "'../x'", "lambda results: None", "lambda results: 1 / 0",
           "lambda results: exit(0)",
           "lambda: 1", "Figure()", "['noise-sweep']", "lambda results: results", "print",
           "lambda results: Figure(figsize=(1, float('nan')))",
           "lambda results: setattr(results.rows, 'x', 1)")  # fmt: skip
FILES = (b"", b"\x00", b"\xff\xfe\x00", b"x = (", b"import no_such_module", b"raise SystemExit(0)",
         b"1/0", b"class Study: pass", b"from kdsim.study.base import Study", b"# coding: no-such\n",
         b"x = " + b"(" * 5000,
         b"from kdsim.study.base import Study\nclass A(Study): pass\nclass B(Study): pass",
         b"import sys; sys.setrecursionlimit(60)\ndef f(): f()\nf()", b"assert False, 'a\\nb'",
         b"raise Exception")  # fmt: skip

SOURCE = Path(tiny_study.__file__).read_text(encoding="utf-8")
HEAD = "import numpy as np\nimport torch\nfrom pathlib import Path\n"


def prepare(folder: Path) -> None:
    """Nothing is shared."""


def case(random: Random, files: None, box: Box) -> Case:
    """A study file with one thing wrong, and a command that meets it."""
    kind = random.choice((_default, _default, _cell, _cell, _cell, _part, _returned, _name, _pool, _noise, _whole))
    source, what = kind(random)
    path = box.data / "study.py"
    path.write_bytes(source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass"))
    command = random.choice(("show-study", "predict", "run-study", "run-study", "results", "figure"))
    arguments = [command, str(path)]
    if command in ("run-study", "results", "figure"):
        arguments += ["--out", str(box.out)]
    if command in ("show-study", "predict", "run-study") and random.randrange(3) == 0:
        arguments.append("--quick")
    if command in ("predict", "run-study") and random.randrange(3) == 0:
        arguments.append("--json")
    return Case(arguments, f"{command}: {what}", own_code=kind in (_returned, _noise, _pool, _whole))


def _edited(*changes: tuple[str, str]) -> str:
    source = SOURCE.replace("steps: int = 400", "steps: int = 40")
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new, 1)
    first, rest = source.split("from dataclasses", 1)
    return f"{first}{HEAD}from dataclasses{rest}"


def _default(random: Random) -> tuple[str, str]:
    """A setting with another default."""
    old = random.choice(
        (
            "step_size: float = 0.05", "steps: int = 40", "replicas: int = 8", "seed: int = 0", 'engine: str = "torch"',
            'device: str = "cpu"', "supervisions: tuple[Supervision, ...] = (Exact(), OneHot(), Halfway())",
            "problem: Problem = field(default_factory=SmallPool)", "classes: int = 3", "dimension: int = 3",
            "samples: int = 64",
            "weight: float = 0.5",
        )
    )  # fmt: skip
    declared, value = old.split(" = ")[0], random.choice(NOISE)
    return _edited((old, f"{declared} = {value}")), f"default {declared} = {value}"


def _cell(random: Random) -> tuple[str, str]:
    """A cell with another value."""
    name, value = random.choice(CELL_FIELDS), random.choice(NOISE)
    changed = f"replace(first, supervision=supervision, **{{'{name}': {value}}})"
    new = f"return tuple({changed} for supervision in self.supervisions)"
    if name == "supervision":
        new = f"return (replace(first, supervision={value}),)"
    old = "return tuple(replace(first, supervision=supervision) for supervision in self.supervisions)"
    return _edited((old, new)), f"cell with {name} = {value}"


def _part(random: Random) -> tuple[str, str]:
    """A part of a cell with another value."""
    sgd = random.randrange(3) > 0
    name, value = random.choice(SGD_FIELDS if sgd else RECORDING_FIELDS), random.choice(NOISE)
    if sgd and name == "steps":
        change = ("SGD(self.steps)", f"SGD({value})")
    elif sgd:
        change = ("SGD(self.steps)", f"SGD(self.steps, {name}={value})")
    else:
        change = ("Recording(checkpoints=8, tail_stride=4)", f"Recording({name}={value})")
    return _edited(change), f"{'SGD' if sgd else 'Recording'} with {name} = {value}"


def _returned(random: Random) -> tuple[str, str]:
    """cells() or quick() that return something else, or raise."""
    value = random.choice(RETURNS)
    if random.randrange(3):
        old = "return tuple(replace(first, supervision=supervision) for supervision in self.supervisions)"
        return _edited((old, f"return {value}")), f"cells() returns {value}"
    first = "first = self.cells()[0]\n        "
    return _edited(("return replace(self, steps=100)", f"{first}return {value}")), f"quick() returns {value}"


def _name(random: Random) -> tuple[str, str]:
    """Another name or figure."""
    if random.randrange(2):
        value = random.choice(NAMES)
        return _edited(('name: ClassVar[str] = "tiny"', f"name: ClassVar[str] = {value}")), f"name = {value}"
    value = random.choice(FIGURES)
    if value.startswith("lambda") and random.randrange(2):
        value = f"staticmethod({value})"
    return _edited(("figure: ClassVar[Any] = draw", f"figure: ClassVar[Any] = {value}")), f"figure = {value}"


def _pool(random: Random) -> tuple[str, str]:
    """A problem with another pool."""
    name, value = random.choice(("x", "p", "y", "optimum")), random.choice(TENSORS)
    body = (
        "\n    def population(self, seed):\n        found = super().population(seed)\n"
        f"        values = dict(vars(found), {name}={value})\n        return type(found)(**values)\n"
    )
    if random.randrange(3) == 0:
        body = f"\n    def population(self, seed):\n        return {value}\n"
    old = '    name: ClassVar[str] = "small-pool"\n'
    return _edited((old, old + body)), f"population with {name} = {value}"


def _noise(random: Random) -> tuple[str, str]:
    """A supervision that answers something else."""
    value = random.choice((*TENSORS, "Target(q=batch.p * float('nan'))", "Target(q=batch.p[..., :1])",
                          "Target(q=None)", "batch.p",
                           "Target(q=-batch.p)", "Target(q=batch.p.double())", "1 / 0", "exit(0)"))  # fmt: skip
    old = random.choice(
        (
            "return Target(q=batch.p + weight * (q - batch.p))",
            "return p\n",
            "return self.weight**2 * OneHot().covariance(p)",
        )
    )
    new = f"return {value}" + ("\n" if old.endswith("\n") else "")
    return _edited((old, new)), f"supervision: {old.strip()} becomes {new.strip()}"


def _whole(random: Random) -> tuple[bytes, str]:
    """A file that is no study file, or not a whole one."""
    if random.randrange(2):
        found = random.choice(FILES)
        return found, f"file {found[:60]!r}"
    data = SOURCE.encode()
    where = random.randrange(len(data))
    return data[:where], f"file cut at {where}"
