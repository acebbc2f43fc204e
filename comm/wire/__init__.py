"""Bytes alone: frames, hellos, what is queued, what values may be. No socket, no event loop."""
