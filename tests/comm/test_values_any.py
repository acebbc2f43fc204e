"""Any message either arrives as the table of docs/messages.md says or is refused by its sender."""

from __future__ import annotations

import collections
import datetime
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sealwire.comm import EncodeError
from sealwire.comm.codec import decode, encode
from support.values import (
    FIVE,
    Count,
    Digest,
    Level,
    Many,
    Ratio,
    Text,
    is_array,
    is_buffer,
    is_moment,
    is_python,
    is_same,
)

zones = st.none() | st.timezones() | st.just(FIVE)
moments = st.tuples(st.datetimes(timezones=zones), st.integers(0, 1)).map(
    lambda pair: pair[0].replace(fold=pair[1])
)
scalars = arrays.scalar_dtypes().flatmap(lambda kind: arrays.arrays(kind, ())).map(lambda a: a[()])
whole = arrays.arrays(
    arrays.scalar_dtypes() | arrays.array_dtypes(),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
turned = st.tuples(whole, st.sampled_from([lambda a: a, np.transpose, np.asfortranarray])).map(
    lambda pair: pair[1](pair[0])
)
texts = st.text(st.characters(exclude_categories=())) | st.text()
numbers = st.integers(-(1 << 70), 1 << 70)
keys = st.one_of(
    st.none(), st.booleans(), numbers, st.floats(), texts, st.binary(), moments,
    st.text().map(Text), numbers.map(Count), st.floats().map(Ratio), st.sampled_from(list(Level)),
)  # fmt: skip
leaves = st.one_of(
    keys, scalars, turned, st.binary().map(bytearray), st.binary().map(memoryview),
    st.binary().map(Digest), st.dates(), st.timedeltas(), st.complex_numbers(), st.decimals(),
)  # fmt: skip
messages = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=18), st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(Many), st.dictionaries(keys, inner, max_size=18),
        st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=10,
)  # fmt: skip


def as_it_should(sent: Any, received: Any, key: bool = False) -> bool:
    """Whether a value has arrived as the table says."""
    if isinstance(sent, np.ndarray):
        return is_array(sent, received)
    if isinstance(sent, bytes) and key:
        return is_same(bytes(sent), received)
    if isinstance(sent, (bytes, bytearray, memoryview)):
        return is_buffer(sent, received)
    if isinstance(sent, np.generic):
        return is_python(sent, received)
    if isinstance(sent, datetime.datetime):
        return is_same(sent, received) if sent.tzinfo is None else is_moment(sent, received)
    if isinstance(sent, dict):
        return len(sent) == len(received) and all(
            as_it_should(old, new, key=True) and as_it_should(value, there)
            for (old, value), (new, there) in zip(sent.items(), received.items(), strict=True)
        )
    if isinstance(sent, (list, tuple)):
        return len(sent) == len(received) and all(map(as_it_should, sent, received))
    if sent is None or type(sent) is bool:
        return received is sent
    plain = next((kind for kind in (int, float, str) if isinstance(sent, kind)), None)
    return plain is not None and is_same(plain(sent), received)


@given(messages)
def test_anything_arrives_as_the_table_says_or_is_refused(message: Any) -> None:
    try:
        frames = encode(message)
    except EncodeError as error:
        assert "; " in str(error)
        assert len(str(error)) < 600
        return
    assert as_it_should(message, decode([bytearray(frame) for frame in frames]))
