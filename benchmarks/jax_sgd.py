"""The peer in jax: SGD on softmax regression, many replicas, compiled by XLA for the CPU.

Two programs. `Inside` is the natural one: vmap over replicas of a scan over steps, random numbers drawn in the step.
`Outside` is the fastest that we found. What was tried, on one core with AVX-512:
- random numbers of a chunk drawn before the scan: up to three times faster with few replicas;
- replicas in blocks of 256 (lax.map), so that parameters stay in the caches: twice as fast at 16,384 replicas;
- a batch of 16 by elementwise products and a sum instead of small matrix products: a third faster from 64 replicas on;
- several threads: replicas over host devices (pmap). XLA's own threads within a step made it slower;
- no gain: generators rbg and unsafe_rbg, unrolled scans, replicas as the last axis, 512-bit vectors, jax.grad.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax

from benchmarks.contenders import STEP_SIZE, Work, distance_sq, pool

CHUNK_VISITS, CHUNK_STEPS = 200_000, 4_096  # a call takes some 20 ms, so that its overhead does not count
BLOCK = 256
MATRIX_PRODUCTS_BELOW = 64  # replicas of a block

Step = Callable[[Array, Array, Array], Array]


def sgd_step(work: Work, matrix_products: bool) -> Step:
    """theta (K, d), pool indices (b,), uniforms (b,) -> the next theta."""
    people = pool(work)
    x, p = jnp.asarray(people.x.numpy(), jnp.float32), jnp.asarray(people.p.numpy(), jnp.float32)
    cdf = jnp.cumsum(p, 1)  # (N, K)

    def step(theta: Array, index: Array, uniform: Array) -> Array:
        batch, below = x[index], cdf[index]  # (b, d), (b, K)
        label = (below < uniform[:, None] * below[:, -1:]).sum(-1)
        if matrix_products:
            residual = jax.nn.softmax(batch @ theta.T) - jax.nn.one_hot(label, work.classes)  # (b, K)
            gradient = residual.T @ batch
        else:
            outputs = (batch[:, None, :] * theta).sum(-1)
            residual = jax.nn.softmax(outputs) - jax.nn.one_hot(label, work.classes)
            gradient = (residual[:, :, None] * batch[:, None, :]).sum(0)
        return theta - STEP_SIZE / work.batch_size * gradient

    return step


def chunk_steps(work: Work, block: int, blocks: int = 1) -> int:
    """Steps of one call: its overhead must not count, and many blocks one after the other must not take seconds."""
    visits = CHUNK_VISITS // min(blocks, 8)
    return int(np.clip(visits // (block * work.batch_size), 8, CHUNK_STEPS))


class _Program(ABC):
    """A compiled chunk of steps that is called again and again on (theta, keys)."""

    run: Callable
    theta: Array
    keys: Array
    steps: int
    """Steps of one call."""

    def prepare(self, work: Work) -> None:
        self.replicas = work.replicas
        self.build(work, None)
        for _ in range(2):  # compiles, then settles where results lie
            self.call()

    @abstractmethod
    def build(self, work: Work, steps: int | None) -> None:
        """Set the fields; `steps` of one call, by default as many as are worth one."""

    def call(self) -> None:
        self.theta, self.keys = jax.block_until_ready(self.run(self.theta, self.keys))

    def walk(self, seconds: float) -> int:
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            self.call()
            steps += self.steps
        return steps * self.replicas

    def distances(self, steps: int, work: Work) -> list[float]:
        self.replicas = work.replicas
        self.build(work, steps)
        self.call()
        theta = np.asarray(self.theta).reshape(-1, *self.theta.shape[-2:])
        return distance_sq(torch.from_numpy(theta.copy()), pool(work))


class Inside(_Program):
    """vmap over replicas of lax.scan over steps; jax.random draws index and label in the step."""

    def build(self, work: Work, steps: int | None) -> None:
        step, size = sgd_step(work, matrix_products=True), (work.batch_size,)
        self.steps = steps or chunk_steps(work, work.replicas)

        def walk(theta: Array, key: Array) -> tuple[Array, Array]:
            def one(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
                theta, key = carry
                key, for_index, for_label = jax.random.split(key, 3)
                index = jax.random.randint(for_index, size, 0, work.samples)
                return (step(theta, index, jax.random.uniform(for_label, size)), key), None

            return lax.scan(one, (theta, key), length=self.steps)[0]

        self.run = jax.jit(jax.vmap(walk), donate_argnums=0)
        self.theta = jnp.zeros((work.replicas, work.classes, work.dimension + 1))
        self.keys = jax.random.split(jax.random.key(0), work.replicas)


class Outside(_Program):
    """Random numbers of a chunk of steps drawn at once, replicas in blocks, blocks over host devices."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def build(self, work: Work, steps: int | None) -> None:
        devices = self.threads if work.replicas % self.threads == 0 else 1
        block = min(BLOCK, work.replicas // devices)
        blocks = work.replicas // (devices * block)
        if devices * blocks * block != work.replicas:
            raise ValueError(f"replicas = {work.replicas} must be a multiple of {devices} x {block}")
        many = jax.vmap(sgd_step(work, work.batch_size == 1 or block < MATRIX_PRODUCTS_BELOW))
        self.steps = steps or chunk_steps(work, block, blocks)

        def walk(state: tuple[Array, Array]) -> tuple[Array, Array]:
            theta, key = state  # (block, K, d)
            key, for_index, for_label = jax.random.split(key, 3)
            size = (self.steps, block, work.batch_size)
            index = jax.random.randint(for_index, size, 0, work.samples)
            draws = index, jax.random.uniform(for_label, size)
            return lax.scan(lambda theta, draw: (many(theta, *draw), None), theta, draws)[0], key

        def run(theta: Array, keys: Array) -> tuple[Array, Array]:
            return lax.map(walk, (theta, keys))

        shape = (blocks, block, work.classes, work.dimension + 1)
        if devices > 1:
            self.run = jax.pmap(run, donate_argnums=0, devices=jax.devices()[:devices])
            self.theta = jnp.zeros((devices, *shape))
            self.keys = jax.random.split(jax.random.key(0), (devices, blocks))
        else:
            self.run = jax.jit(run, donate_argnums=0)
            self.theta = jnp.zeros(shape)
            self.keys = jax.random.split(jax.random.key(0), blocks)
