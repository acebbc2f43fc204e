"""Headless Chromium, which loads nothing but what is on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from support import HANG

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
    "--disable-domain-reliability", "--disable-extensions", "--disable-quic", "--disable-breakpad",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--no-pings", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


def chromium() -> str | None:
    """Where it is, if it is installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def browse(url: str, *options: str, seconds: float = 1.0) -> str:
    """The document as a browser has it `seconds` later, with those of its scripts that ran.

    The seconds are the page's: they pass as fast as its requests are answered.
    """
    found = chromium()
    assert found is not None, "no browser: install Debian's package chromium"
    # Not in a test's folder: the path of a socket, which it makes there, has 107 bytes at most.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [found, *_QUIET, f"--user-data-dir={folder}/profile", *options]
        command += [f"--virtual-time-budget={seconds * 1000:.0f}", "--dump-dom", url]
        names = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")
        done = subprocess.run(
            command,
            env={**os.environ, **dict.fromkeys(names, folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HANG,
            check=False,
        )
    assert done.returncode == 0, (done.returncode, done.stderr.decode(errors="replace")[-2000:])
    return done.stdout.decode()
