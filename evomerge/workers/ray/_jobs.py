"""Jobs on a running Ray cluster: submitted, followed, stopped, through Ray's job server. Needs ray[default]."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from evomerge.errors import EvomergeError, ExtraMissing, InputError

try:
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobStatus, JobSubmissionClient
except ModuleNotFoundError as missing:
    raise ExtraMissing("ray[default]", "cluster") from missing

SILENT_SECONDS = 60.0  # longest time a connection may stay lost while a job is followed
POLL_SECONDS = 1.0
YOUNG_SECONDS = 60.0  # a cluster that has just started may refuse jobs this long: its nodes have no agent yet
# Ray's modules that note what they upload and when a connection closes, each at a level of its own.
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_LOST = (ConnectionError, TimeoutError, OSError, ClientError, RuntimeError)


@dataclass(frozen=True)
class JobState:
    """How far a job is."""

    status: str  # PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED
    message: str
    exit_code: int | None  # the command's exit status, where it has ended by itself
    metadata: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """True where nothing more will happen."""
        return JobStatus(self.status).is_terminal()


class RayJobs:
    """The job server of one cluster."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: URL of the job server, as in http://127.0.0.1:8265. Where the cluster asks for a token, Ray takes
                it from RAY_AUTH_TOKEN or its file; it is no argument, so that it cannot end up in a file of ours.

        Raises:
            InputError: no server answers there, or the token is missing or wrong.
        """
        self.address = address
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise InputError(
                f"the job server at {address} wants a token ({_line(error)}): set RAY_AUTH_MODE=token, RAY_AUTH_TOKEN"
            ) from error
        except _LOST as error:
            raise InputError(
                f"no Ray job server answers at {address}: {_line(error)} Start a cluster (ray start --head, ray up), "
                "open the tunnel (ray dashboard FILE, or ssh -L 8265:127.0.0.1:8265 HEAD), or correct the address"
            ) from error

    def submit(self, entrypoint: str, name: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Upload the working folder and start a job called `name`.

        Raises:
            InputError: the server refuses it.
        """
        until = time.monotonic() + YOUNG_SECONDS
        while True:
            try:
                with _quiet():
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=name,
                        runtime_env=dict(runtime_env),
                        metadata=dict(metadata),
                    )
                return
            except (*_LOST, ValueError) as error:
                if "try again later" not in str(error) or time.monotonic() > until:
                    raise InputError(
                        f"the job server at {self.address} did not take the job: {_line(error)}"
                    ) from error
            time.sleep(POLL_SECONDS)

    def state(self, name: str) -> JobState:
        """Return how far a job is.

        Raises:
            InputError: there is no such job, or the server does not answer.
        """
        try:
            info = self._client.get_job_info(name)
        except _LOST as error:
            raise self._unknown(name, error) from error
        return JobState(str(info.status), info.message or "", info.driver_exit_code, dict(info.metadata or {}))

    def stop(self, name: str) -> bool:
        """Ask a job to end: it gets SIGTERM, and SIGKILL later. Returns False where it had ended before.

        Raises:
            InputError: there is no such job, or the server does not answer.
        """
        try:
            return bool(self._client.stop_job(name))
        except _LOST as error:
            raise self._unknown(name, error) from error

    def wait(self, name: str, seconds: float) -> JobState:
        """Return a job's state once it has ended, or after this many seconds."""
        until = time.monotonic() + seconds
        while not (state := self.state(name)).ended and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return state

    def follow(self, name: str, write: Callable[[str], None]) -> JobState:
        """Hand everything that a job says to `write` until it ends; a lost connection is made again.

        Raises:
            InputError: there is no such job.
            EvomergeError: the connection stayed lost for `SILENT_SECONDS`; the job itself may well go on.
        """
        self.state(name)
        once, heard_at = _Once(write), time.monotonic()
        while True:
            before = once.written
            try:
                with _quiet():
                    asyncio.run(self._tail(name, once))
                state = self.state(name)
                if state.ended:
                    return state
                heard_at = time.monotonic()
            except (*_LOST, InputError) as error:
                if once.written > before:
                    heard_at = time.monotonic()
                if time.monotonic() - heard_at > SILENT_SECONDS:
                    raise EvomergeError(
                        f"lost the connection to {self.address} ({_line(error)}); the job may still be running"
                    ) from error
            time.sleep(POLL_SECONDS)

    async def _tail(self, name: str, once: _Once) -> None:
        once.begin()
        async for text in self._client.tail_job_logs(name):
            once.hear(text)

    def _unknown(self, name: str, error: BaseException) -> InputError:
        if "does not exist" in str(error):
            return InputError(f"the cluster at {self.address} knows no job {name!r}; `ray job list` lists them")
        return InputError(f"the job server at {self.address} does not answer: {_line(error)}")


def _line(error: BaseException) -> str:
    """Return the first line of an error, without what the server adds to it."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") + "." if text else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ray notes about packing and connections out of what the job says."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class _Once:
    """Writes a log that restarts from its beginning after each reconnection; every character once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.written = 0  # characters
        self._heard = 0
        self._write = write

    def begin(self) -> None:
        self._heard = 0

    def hear(self, text: str) -> None:
        self._heard += len(text)
        if self._heard > self.written:
            self._write(text[len(text) - (self._heard - self.written) :])
            self.written = self._heard
