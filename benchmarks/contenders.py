"""What is timed: SGD on softmax regression by our engines and by their peers, each in a process of its own.

A process is started with `Worker` and serves one contender: it prepares some `Work` (builds, compiles, warms up) and
then walks for as long as it is told. Between two requests it sleeps, so contenders can be measured in turn.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from benchmarks.machine import cores, fma_flops, pinned
from kdsim.engines import ENGINES, SGD, Engine, Lane, Recording, State, cpu_fused
from kdsim.engines.base import DTYPES
from kdsim.engines.recorder import Recorder
from kdsim.population import Population
from kdsim.problems import GaussianMixture
from kdsim.students import SoftmaxRegression, minimiser
from kdsim.supervision import Exact, OneHot, Supervision

STEP_SIZE = 0.01
STUDENT = SoftmaxRegression(0.0, "centred")
SUPERVISIONS: dict[str, Supervision] = {"one-hot": OneHot(), "exact": Exact()}
OURS = ("cpu_fused", "torch")
JAX = ("jax", "jax_outside")
LOOP = "autograd_loop"
PEAK = "peak"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Work:
    """One setting: softmax regression on a GaussianMixture, float32, fresh targets, visits with replacement.

    Attributes:
        batch_size, replicas, samples: b, R, N.
        classes, dimension: K, and d without the bias.
        supervision: "one-hot" or "exact" (peers know one-hot only).
    """

    batch_size: int = 1
    replicas: int = 1_024
    samples: int = 65_536
    classes: int = 5
    dimension: int = 30
    supervision: str = "one-hot"


@lru_cache(maxsize=1)
def population(samples: int, classes: int, dimension: int) -> Population:
    """The pool, the same in every process."""
    return GaussianMixture(samples=samples, classes=classes, dimension=dimension).population(0)


def pool(work: Work) -> Population:
    return population(work.samples, work.classes, work.dimension)


class Contender(Protocol):
    """Walks some work as fast as it can."""

    def prepare(self, work: Work) -> None:
        """Build, compile and warm up, from theta = 0."""

    def walk(self, seconds: float) -> int:
        """Walk for at least so long; the number of replica-steps."""

    def distances(self, steps: int, work: Work) -> list[float]:
        """|theta - theta_star|^2 of each replica after so many steps from theta = 0."""


# Our engines ------------------------------------------------------------------------------------


class PacedRun:
    """One run of an engine that waits after each chunk of steps until it is told to go on.

    Recording is excluded: the run is entered past its first checkpoints and left long before the next, and what is
    timed lies between two calls of `stop`, so that building the run and the first chunk do not count either.
    """

    STEPS = 1 << 34
    START = (1 << 22) - 1  # chunks of our engines end at multiples of a power of two: the first is then one step long
    RECORDING = Recording(checkpoints=2, tail_fraction=0.01, tail_stride=1 << 24)

    def __init__(self, engine: Engine, work: Work) -> None:
        self.replicas = work.replicas
        self._told, self._reached = queue.Queue(), queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(engine, work), daemon=True)
        self._thread.start()
        self.step = self._next()

    def _run(self, engine: Engine, work: Work) -> None:
        try:
            people = pool(work)
            sgd, reference = SGD(self.STEPS, work.batch_size), minimiser(STUDENT, people)
            dtype, where = DTYPES[sgd.dtype], torch.device("cpu")
            recorder = Recorder(
                self.RECORDING, STUDENT, people, reference, work.replicas, sgd.steps, dtype, where
            )  # fmt: skip
            assert not any(self.START < step < self.STEPS // 2 for step in recorder.events)
            error = (-reference).to(dtype).repeat(work.replicas, 1, 1)
            engine.run(
                STUDENT, people, [Lane(SUPERVISIONS[work.supervision], STEP_SIZE, 0, work.replicas)], sgd,
                self.RECORDING, reference=reference, anchor=STUDENT.anchor(people),
                state=State(self.START, error, recorder.state()), stop=self._stop,
            )  # fmt: skip
        except BaseException as problem:  # handed to the thread that waits
            self._reached.put(problem)

    def _stop(self, step: int) -> bool:
        self._reached.put(step)
        return self._told.get()

    def _next(self) -> int:
        reached = self._reached.get()
        if isinstance(reached, BaseException):
            raise reached
        return reached

    def walk(self, seconds: float) -> int:
        """Whole chunks, one or more, for at least so long; the number of replica-steps."""
        first, started = self.step, time.perf_counter()
        while True:
            self._told.put(False)
            self.step = self._next()
            if time.perf_counter() - started >= seconds:
                return (self.step - first) * self.replicas

    def close(self) -> None:
        self._told.put(True)
        self._thread.join()


def shorten_chunks() -> None:
    """Let cpu_fused ask `stop` four times as often: at 16,384 replicas its chunks take seconds.

    It costs the engine some microseconds a chunk. The torch engine's chunks are also its blocks in memory and stay.
    """
    if not hasattr(cpu_fused, "CHUNK_VISITS"):
        raise AttributeError("kdsim.engines.cpu_fused has no CHUNK_VISITS any more: adapt shorten_chunks")
    cpu_fused.CHUNK_VISITS = 1 << 20


class OurEngine:
    """An engine of kdsim through its public contract."""

    def __init__(self, engine: str) -> None:
        self.engine = ENGINES[engine]
        self._run: PacedRun | None = None

    def prepare(self, work: Work) -> None:
        shorten_chunks()
        if self._run is not None:
            self._run.close()
        self._run = PacedRun(self.engine, work)

    def walk(self, seconds: float) -> int:
        return self._run.walk(seconds)

    def distances(self, steps: int, work: Work) -> list[float]:
        people = pool(work)
        _, state = self._whole(work, steps, Recording(checkpoints=2), people)
        return state.error.double().square().sum((1, 2)).tolist()

    def whole_run(self, steps: int, work: Work, checkpoints: int) -> dict:
        """A run as a study has it, recording and all: its seconds, and the largest memory this process ever had."""
        people = pool(work)
        self._whole(work, 2, Recording(checkpoints=2), people)  # compiles
        before = peak_memory()
        started = time.perf_counter()
        self._whole(work, steps, Recording(checkpoints=checkpoints), people)
        return {"seconds": time.perf_counter() - started, "peak_bytes": peak_memory(), "peak_before": before}

    def _whole(self, work: Work, steps: int, recording: Recording, people: Population) -> tuple[Any, State]:
        lanes = [Lane(SUPERVISIONS[work.supervision], STEP_SIZE, 0, work.replicas)]
        return self.engine.run(
            STUDENT, people, lanes, SGD(steps, work.batch_size), recording,
            reference=minimiser(STUDENT, people), anchor=STUDENT.anchor(people),
        )  # fmt: skip


def peak_memory() -> int:
    """Largest resident memory that this process has had, bytes.

    Not `ru_maxrss`: that survives exec, so a small process would report the peak of the one that started it.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


# A Python loop ----------------------------------------------------------------------------------


class AutogradLoop:
    """One replica by torch's autograd in a Python loop, as most papers do it."""

    def prepare(self, work: Work) -> None:
        people = pool(work)
        self.x, self.p, self.batch_size = people.x.float(), people.p.float(), work.batch_size
        self.start()
        self.walk(0.05)

    def start(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.theta = torch.zeros(self.p.shape[1], self.x.shape[1], requires_grad=True)
        self.optimiser = torch.optim.SGD([self.theta], lr=STEP_SIZE)

    def step(self) -> None:
        index = torch.randint(len(self.x), (self.batch_size,))
        labels = torch.multinomial(self.p[index], 1)[:, 0]
        loss = torch.nn.functional.cross_entropy(self.x[index] @ self.theta.T, labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def walk(self, seconds: float) -> int:
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(100):
                self.step()
            steps += 100
        return steps

    def distances(self, steps: int, work: Work) -> list[float]:
        self.prepare(work)
        found = []
        for seed in range(work.replicas):
            self.start(seed)
            for _ in range(steps):
                self.step()
            found.append(distance_sq(self.theta.detach()[None], pool(work))[0])
        return found


def distance_sq(theta: Tensor, people: Population) -> list[float]:
    """|theta - reference|^2 of each replica. (R, K, d) -> (R)."""
    return (theta.double() - minimiser(STUDENT, people)).square().sum((1, 2)).tolist()


# Processes --------------------------------------------------------------------------------------


def available() -> tuple[str, ...]:
    """Contenders that can run here: those of jax if it is installed."""
    has_jax = importlib.util.find_spec("jax") is not None
    return (*OURS, *(JAX if has_jax else ()), LOOP)


def contender(name: str, threads: int) -> Contender:
    if name in OURS:
        return OurEngine(name)
    if name in JAX:
        from benchmarks import jax_sgd  # optional, and it reads the environment when imported

        return jax_sgd.Inside() if name == "jax" else jax_sgd.Outside(threads)
    return {LOOP: AutogradLoop}[name]()


def environment(name: str, threads: int) -> dict[str, str]:
    """Variables that bound the threads of a contender, besides the cores it is pinned to.

    XLA sizes its thread pool by the cores that the process may use when jax is imported; there is no flag for more than
    one thread. Its scheduling of a small loop body over several threads is slower than one thread, so `jax_outside`
    splits the replicas over as many host devices as there are threads.
    """
    variables = {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    if name in JAX:
        flags = ["--xla_cpu_multi_thread_eigen=false"] if threads == 1 else []
        if name == "jax_outside" and threads > 1:
            flags.append(f"--xla_force_host_platform_device_count={threads}")
        variables["XLA_FLAGS"] = " ".join(flags)
    return variables


class Worker:
    """A process that serves one contender on the first `threads` of our cores."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        with pinned(cores()[:threads]):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.contenders", name, str(threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                env={**os.environ, **environment(name, threads)},
            )  # fmt: skip

    def ask(self, what: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer; a `Work` travels as its fields."""
        values = {key: asdict(value) if isinstance(value, Work) else value for key, value in arguments.items()}
        try:
            self._process.stdin.write(json.dumps({"what": what, **values}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the read below finds no answer
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"contender {self.name} on {self.threads} threads ended at {what!r} {values}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(name: str, threads: int) -> None:
    """Answer the requests on standard input, one JSON object a line, until it is closed."""
    torch.set_num_threads(threads)
    served = None if name == PEAK else contender(name, threads)
    for line in sys.stdin:
        request = json.loads(line)
        what = request.pop("what")
        if "work" in request:
            request["work"] = Work(**request["work"])
        if what == "peak":
            answer = fma_flops(threads, **request)
        elif what == "walk":
            answer = timed(served, **request)
        else:
            answer = getattr(served, what)(**request)
        print(json.dumps(answer), flush=True)


def timed(served: Contender, seconds: float) -> dict:
    """Replica-steps a second of one measurement, and how many cores it kept busy."""
    started, cpu = time.perf_counter(), time.process_time()
    steps = served.walk(seconds)
    elapsed = time.perf_counter() - started
    return {"rate": steps / elapsed, "seconds": elapsed, "cores_busy": (time.process_time() - cpu) / elapsed}


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
