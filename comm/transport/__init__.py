"""Sockets and the event loop: streams of frames, plain or TLS, dialled and accepted."""
