"""Tokens as texts: whole or told to be damaged, and never shown by accident."""

from __future__ import annotations

import copy
import pickle
import re
import traceback

import pytest

from sealwire.joining import Token, TokenError
from sealwire.joining.tokens import PREFIX, digest, identifier, verifies
from sealwire.security import Authority

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("lab CA")


@pytest.fixture(scope="module")
def token(authority: Authority) -> Token:
    return Token.make([authority.parsed])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_token_is_its_text(count: int) -> None:
    token = Token.make([Authority.create(f"CA {number}").parsed for number in range(count)])
    text = token.text()
    assert re.fullmatch(r"sealwire_join_[a-z2-7]{112,300}", text)
    again = Token.parse(f"  {text}\r\n")
    assert again == token
    assert again.text() == text
    assert (again.id, again.public) == (token.id, token.public)


@pytest.mark.parametrize("count", [0, 5])
def test_a_token_names_a_few_authorities(count: int) -> None:
    with pytest.raises(TokenError, match=f"for {count} CAs"):
        Token.make([Authority.create(f"CA {number}").parsed for number in range(count)])


def test_every_wrong_character_is_told(token: Token) -> None:
    body = token.text().removeprefix(PREFIX)
    for place, there in enumerate(body):
        wrong = ALPHABET[(ALPHABET.index(there) + 7) % 32]
        with pytest.raises(TokenError, match=r"wrong or missing"):
            Token.parse(PREFIX + body[:place] + wrong + body[place + 1 :])


def test_every_swap_of_neighbours_and_every_cut_is_told(token: Token) -> None:
    body = token.text().removeprefix(PREFIX)
    for place in range(len(body) - 1):
        swapped = body[:place] + body[place + 1] + body[place] + body[place + 2 :]
        if swapped != body:
            with pytest.raises(TokenError):
                Token.parse(PREFIX + swapped)
    for length in range(len(body)):
        with pytest.raises(TokenError):
            Token.parse(PREFIX + body[:length])
        with pytest.raises(TokenError):
            Token.parse(PREFIX + body[length + 1 :])


@pytest.mark.parametrize(
    "text",
    ["", "  ", "sealwire_join_", "hunter2", "sealwire_join_é", "sealwire_join_" + "a" * 10**6,
     "SEALWIRE_JOIN_AA", "sealwire_join_a b", "sealwire_join_a\0", "sealwire_join_1018", "\ud800",
     None, 7, b"sealwire_join_aa", ["sealwire_join_aa"]],
)  # fmt: skip
def test_what_is_no_token_is_told_without_quoting_it(text: object) -> None:
    with pytest.raises(TokenError, match="bad token") as caught:
        Token.parse(text)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


def test_nothing_shows_the_secret(token: Token) -> None:
    secrets = (token.text(), token.text().removeprefix(PREFIX)[60:], token.seed.hex(),
               repr(token.seed))  # fmt: skip
    shown = f"{token} {token!r} {token.id} {[token]} {vars(type(token))}"
    try:
        Token.parse(token.text()[:-1] + "\n!")
    except TokenError:
        shown += traceback.format_exc()
    assert not any(secret in shown for secret in secrets)
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            copied(token)


def test_the_public_half_verifies_and_cannot_sign(token: Token) -> None:
    signature = token.sign(b"what")
    assert verifies(token.public, signature, b"what")
    assert not verifies(token.public, signature, b"other")
    assert not verifies(token.public, signature[:-1], b"what")
    assert not any(
        verifies(token.public, bad, b"what") for bad in (b"", None, "text", 3, bytes(64))
    )
    assert not verifies(b"short", signature, b"what")
    assert Token(token.digests, token.public).public != token.public
    assert identifier(token.public) == token.id


def test_the_digest_is_that_of_the_key_and_not_of_the_certificate(authority: Authority) -> None:
    again = Authority.create("lab CA", days=10, key=authority._key)
    assert again.certificate != authority.certificate
    assert digest(again.parsed) == digest(authority.parsed)
    token = Token.make([authority.parsed])
    assert token.names(again.parsed)
    assert not token.names(Authority.create("lab CA").parsed)
