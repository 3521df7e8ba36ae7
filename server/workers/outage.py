"""How a worker tells of what it tries again and again: in few lines, for the reader of a log needs no more."""

import time
from typing import Final

import structlog

REMIND_S: Final = 60.0

_logger = structlog.get_logger(__name__)


class Outage:
    """A line where tries begin to fail or fail for another cause, one a minute meanwhile, and one at the end.

    Parameters
    ----------
    event : name of the line
    fix : what the reader has to do beside what the fault says
    """

    def __init__(self, event: str, fix: str) -> None:
        self._event = event
        self._fix = fix
        self._kind: type[Exception] | None = None
        self._since = self._told = 0.0

    def tell(self, fault: Exception) -> None:
        """Tell of a try that failed."""
        now = time.monotonic()
        if self._kind is None:
            self._since = now
        if self._kind is not type(fault) or now - self._told >= REMIND_S:
            _logger.warning(self._event, reason=str(fault), fix=self._fix, since_s=round(now - self._since))
            self._kind, self._told = type(fault), now

    def end(self) -> None:
        """Tell that a try succeeded, if one failed before."""
        if self._kind is not None:
            _logger.warning("works_again", after=self._event, after_s=round(time.monotonic() - self._since))
            self._kind = None
