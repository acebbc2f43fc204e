"""What to do with new certificates: commands and snippets to paste."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

PRELOAD = "--preload sealwire.dask_backend.preload"
MOUNT = "/etc/sealwire"


def next_steps(folder: Path, seen_at: str | None) -> str:
    """Return the text that `init` prints at its end."""
    here = shlex.quote(str(folder))
    config = shlex.quote(os.path.join(seen_at or os.path.abspath(folder), "dask.yaml"))
    mount = seen_at or MOUNT
    elsewhere = "" if seen_at else f"  (made with: --seen-at {mount})"
    return f"""
Next, on each machine:

  export DASK_CONFIG={config}      # or copy it to ~/.config/dask/
  dask scheduler {PRELOAD}
  dask worker tls://SCHEDULER:8786 {PRELOAD}
  python -c 'import sealwire.dask_backend.preload; from dask.distributed import Client; \\
             print(Client("tls://SCHEDULER:8786"))'

Give each machine ca.pem, crl.pem, dask.yaml and its own role's file; ca-key.pem stays here.

Every day, from cron:
  sealwire certs renew --dir {here} --if-expires-within 30d

Look at it:
  sealwire certs show {here}
  sealwire certs check {here}

Kubernetes{elsewhere}:
  for role in scheduler worker; do
    kubectl create secret generic sealwire-$role --dry-run=client -o yaml \\
      --from-file={here}/ca.pem --from-file={here}/crl.pem \\
      --from-file={here}/$role.pem --from-file={here}/dask.yaml | kubectl apply -f -
  done
{kubernetes(mount)}
docker compose{elsewhere}, each service with a folder of its own:
  mkdir -p deploy/worker
  cp {here}/{{ca,crl,worker}}.pem {here}/dask.yaml deploy/worker/
{compose(mount)}"""


def kubernetes(mount: str) -> str:
    """Part of a pod's specification; it mounts a whole folder, since a subPath is never updated."""
    return f"""
  spec:
    securityContext: {{fsGroup: 1000}}
    containers:
      - name: worker
        command: [dask, worker, "tls://scheduler:8786", --preload, sealwire.dask_backend.preload]
        env:
          - {{name: DASK_CONFIG, value: {mount}/dask.yaml}}
        volumeMounts:
          - {{name: sealwire, mountPath: {mount}, readOnly: true}}
    volumes:
      - name: sealwire
        secret: {{secretName: sealwire-worker, defaultMode: 0440}}
"""


def compose(mount: str) -> str:
    """Return a service; it mounts a folder, since a mounted file is not updated on replacement."""
    return f"""
  services:
    worker:
      command: dask worker tls://scheduler:8786 {PRELOAD}
      environment:
        DASK_CONFIG: {mount}/dask.yaml
      volumes:
        - ./deploy/worker:{mount}:ro"""
