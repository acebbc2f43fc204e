"""Bytes only: frames, hellos, send queue, bounds on values. No socket, no event loop."""
