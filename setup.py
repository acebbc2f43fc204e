"""Everything is declared in setup.cfg, but for the description: README.md as an index shows it."""

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#)([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]+)\]\((?!https?://)([^)\s]+)\)\n*")


def long_description():
    """Return README.md with links that lead somewhere from elsewhere too.

    Links to files of the repository become absolute if setup.cfg has its address, a Source in
    project_urls; else their texts are left, which are the files' names, and pictures are left out.
    """
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    metadata = config["metadata"]
    source = re.search(r"^Source\s*=\s*(\S+)$", metadata.get("project_urls", ""), re.MULTILINE)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if not source:
        return LINK.sub(r"\1", PICTURE.sub("", text))
    address, tag = source[1].rstrip("/"), f"v{metadata['version']}"
    # Those of a picture lead to its bytes, of everything else to a page about it.
    text = PICTURE.sub(rf"![\1]({address}/raw/{tag}/\2)\n\n", text)
    return LINK.sub(rf"[\1]({address}/blob/{tag}/\2)", text)


setup(long_description=long_description(), long_description_content_type="text/markdown")
