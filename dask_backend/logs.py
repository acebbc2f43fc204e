"""Our lines appear where distributed's do, unless the configuration has something to say of ours.

Dask's logging configuration shows the loggers it names; by default that is "distributed", at INFO.
What a listener says of a refused worker is worth as much as what the scheduler says of those that
came in, so "sealwire" follows "distributed" in level and handlers.
"""

from __future__ import annotations

import logging

__all__ = ["follow_distributed", "unfollow"]

_ours = logging.getLogger("sealwire")
_theirs = logging.getLogger("distributed")


class _BesideDistributed(logging.Handler):
    """Hands records to the handlers that distributed's logger has at that time.

    Where the root has handlers, as under pytest or after `logging.basicConfig`, records reach
    those by themselves.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            for handler in _theirs.handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)


_handler = _BesideDistributed()


def follow_distributed() -> None:
    """Begin, unless "sealwire" has been given a level or handlers. Twice does no harm."""
    if _ours.level == logging.NOTSET and not _ours.handlers:
        _ours.setLevel(_theirs.level)
        _ours.addHandler(_handler)


def unfollow() -> None:
    """Undo it."""
    if _handler in _ours.handlers:
        _ours.removeHandler(_handler)
        _ours.setLevel(logging.NOTSET)
