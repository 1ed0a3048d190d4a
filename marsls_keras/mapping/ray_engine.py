"""Compute shards on a Ray cluster: an actor a device holds the networks, and shards are its tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from marsls_keras.errors import InputError, MarslsError, RunError
from marsls_keras.mapping.shards import Advance, ShardComputer, predictions

RETRIES = 3
"""How often Ray computes a shard again whose actor or machine failed."""


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        InputError: If it is not; the message says how to install it.

    Example:
        >>> require_ray()  # doctest: +SKIP
    """
    if find_spec("ray") is None:
        raise InputError('--ray needs Ray: pip install "marsls-keras[cluster]"')


def compute_on_ray(
    out: Path,
    runs: Path,
    raster: str,
    numbers: Sequence[int],
    address: str,
    actors: int | None,
    advance: Advance,
) -> Iterator[int]:
    """Compute shards on a Ray cluster, and yield the number of each finished one.

    All machines need this package, and see the folders of the map and of the runs, and the raster, under the same
    paths. A shard whose actor or machine fails is computed by another one.

    Args:
        out: Folder of the map.
        runs: Folder of the runs.
        raster: The raster.
        numbers: The shards.
        address: "auto" for the cluster of this machine, else host:port or ray://host:port.
        actors: Number of actors; one for each GPU by default, without GPUs one for each machine.
        advance: Function that is called with the number of windows of each finished shard.

    Raises:
        InputError: If Ray is not installed, there is no cluster at the address, or an actor cannot read its input.
        RunError: If a shard fails for good.

    Example:
        >>> done = compute_on_ray(out, runs, "valles.tif", range(100), "auto", None, print)  # doctest: +SKIP
        >>> sorted(done)[:2]  # doctest: +SKIP
        [0, 1]
    """
    require_ray()
    import ray
    from ray.util import ActorPool

    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--ray {address}: there is no Ray cluster ({reason}). ray start --head begins one on this machine."
        ) from error
    # Absolute paths: an actor's working directory is one of Ray's own.
    places = str(out.resolve()), str(runs.resolve()), raster if _remote(raster) else str(Path(raster).resolve())
    remote = ray.remote(max_restarts=-1, max_task_retries=RETRIES)(_Actor)
    pool = ActorPool([remote.options(**need).remote(*places) for need in _needs(ray, actors)])
    computer = ShardComputer.open(out, runs, raster)
    try:
        for number in pool.map_unordered(lambda actor, number: actor.compute.remote(number), list(numbers)):
            advance(predictions(computer.manifest, computer.manifest.boxes[number]))
            yield number
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MarslsError):
            raise cause from None
        raise RunError(f"A shard failed on the Ray cluster: {cause}") from error
    except ray.exceptions.RayError as error:
        raise RunError(f"The Ray cluster failed: {error}") from error
    finally:
        ray.shutdown()


def _remote(raster: str) -> bool:
    return "://" in raster or raster.startswith("/vsi")


def _needs(ray: Any, actors: int | None) -> list[dict[str, Any]]:
    """Return the resources of each actor."""
    total = ray.cluster_resources()
    if gpus := int(total.get("GPU", 0)):
        return [{"num_gpus": 1, "num_cpus": 1}] * min(actors or gpus, gpus)
    cores = [int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"]]
    number = actors or len(cores)
    share = max(1, min(min(cores), int(sum(cores)) // number))
    return [{"num_cpus": share, "scheduling_strategy": "SPREAD"}] * min(number, sum(cores) // share)


class _Actor:
    """Holds the networks on one device and computes shards.

    Args:
        out: Folder of the map.
        runs: Folder of the runs.
        raster: The raster.
    """

    def __init__(self, out: str, runs: str, raster: str) -> None:
        self._computer = ShardComputer.open(Path(out), Path(runs), raster)

    def compute(self, number: int) -> int:
        """Compute a shard, and return its number."""
        self._computer.compute(number)
        return number
