"""Everything is declared in setup.cfg, but for the description: README.md as an index shows it."""

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#)([^)\s]+)\)")


def long_description():
    """Return README.md with links that lead somewhere from elsewhere too.

    Links to files of the repository become absolute if setup.cfg has its address, a Source in
    project_urls; else their texts are left, which are the files' names.
    """
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    metadata = config["metadata"]
    source = re.search(r"^Source\s*=\s*(\S+)$", metadata.get("project_urls", ""), re.MULTILINE)
    target = rf"[\1]({source[1].rstrip('/')}/blob/v{metadata['version']}/\2)" if source else r"\1"
    return LINK.sub(target, (ROOT / "README.md").read_text(encoding="utf-8"))


setup(long_description=long_description(), long_description_content_type="text/markdown")
