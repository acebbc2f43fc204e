"""What a run has to say of the machine it ran on."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "sealwire",
    "distributed",
    "dask",
    "tornado",
    "msgpack",
    "numpy",
    "uvloop",
    "grpcio",
    "pyzmq",
)


def facts() -> dict[str, Any]:
    """Versions, processor, load, and the revision of the sources."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": platform.system() + " " + platform.release(),
        "cpu": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_implementation() + " " + platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "load": [round(value, 2) for value in os.getloadavg()],
        "revision": _revision(),
    }


def cpu_of_all() -> float:
    """CPU seconds that the whole machine has spent so far."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _, _, interrupts, soft, steal = map(int, fields[:8])
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def cpu_of_ours() -> float:
    """CPU seconds that this process has spent, and the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str:
    """Return the commit that is measured; with "-dirty" if more than the results has changed."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    results = f":(exclude){here.name}/results"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", results)
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if changed else "")
