"""`python -m sealwire.cli` is `sealwire`."""

from __future__ import annotations

from sealwire.cli.main import main

if __name__ == "__main__":
    main(prog_name="sealwire")
