"""Which series there are, and what they mean; docs/monitoring.md has the same table."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["SERIES", "Series"]


class Series(NamedTuple):
    """One family of series.

    Attributes
    ----------
    name : str
        As queries have it.
    type : {"counter", "gauge", "histogram"}
        Of a histogram there are also ``_bucket``, ``_sum`` and ``_count``.
    labels : tuple of str
        Their values are from bounded sets; none is about a single peer.
    meaning : str
        With its unit.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


SERIES = {
    series.name: series
    for series in (
        Series(
            "sealwire_comms_open",
            "gauge",
            ("scheme", "tls_version", "direction"),
            "Comms that are open now; direction is in if the peer has dialled, else out",
        ),
        Series(
            "sealwire_payload_bytes_total",
            "counter",
            ("direction",),
            "Bytes received (in) and sent (out), without the overhead of TLS",
        ),
        Series(
            "sealwire_messages_total",
            "counter",
            ("direction",),
            "Messages read (in) and written (out), without hellos",
        ),
        Series(
            "sealwire_send_queue_bytes",
            "gauge",
            (),
            "Bytes that are written and that the kernel has not taken yet, of all comms",
        ),
        Series(
            "sealwire_connections_accepted_total",
            "counter",
            (),
            "Connections that listeners have accepted from the kernel",
        ),
        Series(
            "sealwire_connections_greeted_total",
            "counter",
            (),
            "Accepted connections that became comms: TLS handshake and hello completed",
        ),
        Series(
            "sealwire_connections_pending",
            "gauge",
            (),
            "Accepted connections whose TLS handshake or hello is in progress",
        ),
        Series(
            "sealwire_connections_refused_total",
            "counter",
            ("kind",),
            "Accepted connections that did not become comms, by the kind of error",
        ),
        Series(
            "sealwire_comms_broken_total",
            "counter",
            ("kind",),
            "Comms that ended with an error, whoever has dialled, by its kind",
        ),
        Series(
            "sealwire_listener_starved_total",
            "counter",
            (),
            "Times that a listener had no file descriptor or memory for a connection",
        ),
        Series(
            "sealwire_handshake_seconds",
            "histogram",
            ("side",),
            "Seconds from the TCP connection to the peer's hello, where it came; "
            "side is server if the peer has dialled, else client",
        ),
        Series(
            "sealwire_loop_hold_seconds",
            "histogram",
            (),
            "Seconds that an event loop was late for a timer while it did I/O: something held it",
        ),
        Series(
            "sealwire_certificate_not_after_timestamp_seconds",
            "gauge",
            ("role", "kind"),
            "When the first of a role's certificates of a kind expires, in seconds since 1970; "
            "kind is leaf, ca or crl",
        ),
        Series(
            "sealwire_certificate_loaded_timestamp_seconds",
            "gauge",
            ("role",),
            "Since when the files of a role are in use with their present content, in seconds "
            "since 1970",
        ),
        Series(
            "sealwire_reload_failures_total",
            "counter",
            (),
            "Failed attempts to use changed certificate files, repeated until they can be used",
        ),
        Series(
            "sealwire_info",
            "gauge",
            ("version", "openssl", "python", "backend"),
            "Always 1; backend is sealwire, distributed if its own is installed, or none",
        ),
    )
}
"""By their names."""
