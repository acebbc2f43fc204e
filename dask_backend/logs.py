"""Sends our log lines where distributed's go, unless our logger is configured.

Dask's logging configuration shows the loggers it names; by default that is "distributed", at INFO.
A listener's line about a refused worker is as important as the scheduler's about those that joined,
so "sealwire" uses the level and handlers of "distributed".
"""

from __future__ import annotations

import logging

__all__ = ["follow_distributed", "unfollow"]

_ours = logging.getLogger("sealwire")
_theirs = logging.getLogger("distributed")


class _BesideDistributed(logging.Handler):
    """Passes records to the current handlers of distributed's logger.

    Where the root logger has handlers, as under pytest or after `logging.basicConfig`, records
    reach those by themselves.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            for handler in _theirs.handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)


_handler = _BesideDistributed()


def follow_distributed() -> None:
    """Start, unless "sealwire" has a level or handlers. Calling it twice does no harm."""
    if _ours.level == logging.NOTSET and not _ours.handlers:
        _ours.setLevel(_theirs.level)
        _ours.addHandler(_handler)


def unfollow() -> None:
    """Undo `follow_distributed`."""
    if _handler in _ours.handlers:
        _ours.removeHandler(_handler)
        _ours.setLevel(logging.NOTSET)
