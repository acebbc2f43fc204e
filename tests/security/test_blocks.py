"""PEM blocks: the same as ever are found, in time that grows with the text and no faster."""

from __future__ import annotations

import re
import time

import pytest
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st

from sealwire.security import PEMError
from sealwire.security.pem import certificates, source
from sealwire.security.pem_blocks import blocks, is_torn
from support import certs

CA = certs.root()
NODE = certs.leaf(CA)

# What a block is, written down as briefly as it can be: it takes quadratic time.
MEANT = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----[\x00-\x7f]*?-----END \1-----")

PIECES = [
    "-----BEGIN A-----",
    "-----END A-----",
    "-----BEGIN B C-----",
    "-----END B C-----",
    "-----BEGIN -----",
    "-----BEGIN a-----",
    "-----BEGIN A",
    "-----END A",
    "-----",
    "--",
    "BEGIN A-----",
    "END A-----",
    "A-----",
    " ",
    "\n",
    "\r\n",
    "MIIB",
    "é",
    "\ufffd",
    "\x00",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@example("-----BEGIN A-----END A-----")
@example("-----BEGIN B C-----x-----END A-----END B C-----")
@example("-----BEGIN A-----BEGIN B C-----x-----END B C-----END A-----")
@example("-----BEGIN A-----\n-----BEGIN A-----\né\n-----END A-----")
def test_the_meaning_is_that_of_one_expression(text: str) -> None:
    assert [(block.label, block.text) for block in blocks(text)] == [
        (found[1], found[0]) for found in MEANT.finditer(text)
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.strip(),
        lambda text: text.replace("-----\n", "-----  \t\n"),
        lambda text: f"Subject: né\n\n{text}\ntrailing words",
        lambda text: "\n\n" + text.replace("-----BEGIN", "\n\n-----BEGIN"),
        lambda text: "\ufeff" + text,
    ],
    ids=["plain", "CRLF", "no last line end", "spaces", "comments", "empty lines", "BOM"],
)
def test_what_is_sound_is_found_whole(change: object) -> None:
    text = change(CA.pem + NODE.pem + NODE.key_pem)  # type: ignore[operator]
    found = blocks(text)
    assert [block.label for block in found] == ["CERTIFICATE", "CERTIFICATE", "PRIVATE KEY"]
    loaded = [x509.load_pem_x509_certificate(each.text.encode()) for each in found[:2]]
    assert loaded == [CA.certificate, NODE.certificate]
    assert not is_torn(text, found)


@pytest.mark.parametrize(
    "text",
    [
        CA.pem + NODE.pem[:200],
        NODE.pem[:200] + "\n" + CA.pem,
        CA.pem.replace("-----END", "-----BEGIN X-----\n-----END"),
        CA.pem + "-----BEGIN certificate-----\n",
    ],
    ids=["half behind", "half before", "BEGIN inside", "another BEGIN"],
)
def test_what_is_torn_is_refused(text: str) -> None:
    given_text = source("tls_ca_file", text)
    assert given_text is not None
    with pytest.raises(PEMError, match=r"tls_ca_file \(PEM text in memory\): .*is cut short"):
        certificates(given_text)


@pytest.mark.parametrize(
    "piece",
    [
        "-----BEGIN X{n}-----\nAAAA\n",
        "-----BEGIN X-----\n",
        "-----END X-----\n",
        "-----BEGIN X-----\n\ufffd-----END X-----\n",
        "-----BEGIN X-----\n-----END Y-----\n",
        "-----BEGIN ",
        "-",
        "-----BEGIN " + "A" * 999,
        "\ufffd",
    ],
)
def test_a_mebibyte_of_anything_takes_a_moment(piece: str) -> None:
    text = "".join(piece.format(n=n) for n in range(2**20 // len(piece) + 1))
    began = time.process_time()
    blocks(text)
    assert time.process_time() - began < 5  # of the quadratic kind: minutes
