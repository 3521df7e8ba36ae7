"""The processes that count: tasks of Ray, on this machine or on the machines of a cluster."""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
Promise = Any
"""Result of a task, kept where it was made until another task or we ask for it."""

RETRIES: Final = 2
"""Tries of a task beside the first, whose process died; a task is pure, so that another try does no harm."""
START_S: Final = 300.0
"""Seconds without a result after which a process is started as a sign of life, and those that it may take."""
_FIX: Final = "if memory ran out, take fewer --processes or more --shards"

_RAY: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",  # a machine that is busy starts its parts slowly
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_task_oom_retries": str(RETRIES),  # else a task that needs too much memory is tried for ever
}
_OWN: Final = {"RAY_AUTH_MODE": "token"}
"""Of processes of this machine alone; a cluster says itself whom it lets in."""
_ONE_THREAD: Final = {"RAYON_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
"""A task has one processor."""


class MissingRayError(ValueError):
    """Ray is not installed."""


class Workers:
    """Processes that run functions of this package, as `workers` opens them."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._sign = ray.remote(num_cpus=0)(_sign)
        self._task = cache(ray.remote(max_retries=RETRIES))

    def run(self, work: Callable[..., object], *arguments: object) -> Promise:
        """Begin `work`, and return its promise; promises among the arguments are awaited there."""
        return self._task(work).remote(*arguments)

    def result(self, promise: Promise) -> Any:
        """Return the result of a task.

        Raises
        ------
        Exception
            What the task raised.
        ConnectionError
            When Ray gave the task up, or can start no process.
        """
        try:
            self._wait(promise)
            return self._ray.get(promise)
        except self._ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, self._ray.exceptions.RayTaskError) else error
            if not isinstance(cause, self._ray.exceptions.RayError):
                raise cause from error
            raise self._lost(cause) from error

    def _wait(self, promise: Promise) -> None:
        """Wait for the result while a process could start; where none can, Ray itself would try for ever."""
        while not self._ray.wait([promise], timeout=START_S)[0]:
            sign = self._sign.remote()
            if not self._ray.wait([promise, sign], timeout=START_S)[0]:
                why = f"Ray could start no process within {START_S:g} s; what it says of that is above"
                raise ConnectionError(f"{why}; look at the limits of memory and threads, take fewer --processes")

    def _lost(self, error: Exception) -> ConnectionError:
        """Return what to say of a task that Ray gave up."""
        reason, faults = str(error).partition("\n")[0], self._ray.exceptions
        if isinstance(error, (faults.WorkerCrashedError, faults.OutOfMemoryError)):
            return ConnectionError(f"a process that counts died {RETRIES + 1} times ({reason}); {_FIX}")
        return ConnectionError(f"Ray lost a task ({reason}); {_FIX}")

    def results(self, promises: Sequence[Promise], done: Callable[[float], None]) -> list[Any]:
        """Return the results in order; `done` is told the share that is there."""
        found = []
        for number, promise in enumerate(promises, 1):
            found.append(self.result(promise))
            done(number / len(promises))
        return found


def _sign() -> None:
    """Be a task that needs a process and nothing else."""


@contextmanager
def workers(count: int, address: str = "") -> Iterator[Workers]:
    """Give `count` processes of this machine, or those of the Ray cluster at `address`.

    Raises
    ------
    MissingRayError
    ConnectionError
        When Ray does not start here, or the cluster does not answer or lets nobody in.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingRayError("counting over shards needs Ray; install it with `pip install 'shopkeeper[ray]'`")
    for name, value in (_RAY if address else _RAY | _OWN).items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415 - an extra

    own = {"num_cpus": count, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    where: dict[str, Any] = {"address": address} if address else own
    try:
        ray.init(**where, runtime_env={"env_vars": _ONE_THREAD}, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises plain ones, too, where its parts do not start
        here = "look at its memory and load, take fewer --processes"
        fix = "run this on one of its machines, with its token" if address else here
        raise ConnectionError(f"Ray at {address or 'this machine'} cannot be used ({error}); {fix}") from error
    try:
        yield Workers(ray)
    finally:
        ray.shutdown()
