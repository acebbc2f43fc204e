"""Certificates for a cluster: a CA and one identity per role, in the folder certs."""

import os
from pathlib import Path

from sealwire.security import Authority

os.umask(0o077)  # keys are for us alone
folder = Path("certs")
folder.mkdir()
authority = Authority.create("my cluster")
(folder / "ca.pem").write_text(authority.certificate)
for role in ("client", "scheduler", "worker"):
    identity = authority.issue(role, days=365)
    (folder / f"{role}.pem").write_text(identity.certificate + identity.key)
