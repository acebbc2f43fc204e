"""What to do with new certificates, here and now: one screen of commands to paste."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def next_steps(folder: Path, seen_at: str | None) -> str:
    """Return the text that `init` prints at its end."""
    named = shlex.quote(str(folder))
    where = "" if str(folder) == "certs" else f" --dir {named}"
    config = shlex.quote(os.path.join(seen_at or os.path.abspath(folder), "dask.yaml"))
    host, listen = ("SCHEDULER", "") if seen_at else ("127.0.0.1", " --host 127.0.0.1")
    place = f"where the files are seen in {seen_at}" if seen_at else "each in a terminal of its own"
    return f"""
Now, {place}:

  export DASK_CONFIG={config}
  dask scheduler --protocol tls{listen}
  dask worker tls://{host}:8786
  python -c 'from dask.distributed import Client
print(Client("tls://{host}:8786"))'

Each machine needs ca.pem, crl.pem, dask.yaml and the file of its role; the
other files stay here, ca-key.pem above all. To see whether everything fits, and
what to paste for ssh, kubernetes, compose, slurm and cron:

  sealwire certs check {named}
  sealwire certs snippet{where}
  sealwire certs serve{where}    # tokens instead of files
"""
