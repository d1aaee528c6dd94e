from dataclasses import fields

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.runtime import messages as m
from feste_dp.runtime.messages import MAX_FRAME_BYTES, Ints, ProtocolError, decode, encode

KINDS = (m.Ready, m.Compute, m.ShardDone, m.Reduce, m.StripeDone, m.Evaluate, m.UnitDone, m.Failed, m.Stop)
LARGEST = 2**63 - 1

counts = st.integers(0, LARGEST)
VALUES = {
    int: counts,
    float: st.floats(allow_nan=False),
    str: st.text(max_size=200),
    Ints: st.lists(counts, max_size=20).map(tuple),
}
messages = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(kind, **{field.name: VALUES[field.type] for field in fields(kind)})
)

EXAMPLES = (
    m.Ready(4711),
    m.Compute(3, (0, 1), (10, 20, 30, 40)),
    m.ShardDone(3, 1, 12.5, 0.25),
    m.Reduce(3, 0, 7),
    m.StripeDone(3, 0, 7, 0.5),
    m.Evaluate(3, (4,), (1, 2)),
    m.UnitDone(3, 4, 1.5, 0.125),
    m.Failed("ValueError: no", "Traceback\n  ..."),
    m.Stop(),
)


@given(messages)
def test_every_message_reads_back_as_it_was_written(message):
    assert decode(encode(message)) == message


def test_a_loss_that_is_not_finite_reads_back_as_it_was_written():
    for loss in (float("nan"), float("inf"), float("-inf")):
        assert repr(decode(encode(m.ShardDone(1, 2, loss, 0.5)))) == repr(m.ShardDone(1, 2, loss, 0.5))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_protocol_error(data):
    decodes_or_refuses(data)


def test_two_thousand_random_and_mutated_frames_give_a_message_or_a_protocol_error(rng):
    refused = 0
    for number in range(2000):
        if number % 2:
            frame = rng.bytes(int(rng.integers(0, 80)))
        else:
            frame = mutated(encode(EXAMPLES[number // 2 % len(EXAMPLES)]), rng)
        refused += not decodes_or_refuses(frame)
    assert refused > 1000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (msgpack.packb([8]) + b"\x00", "not msgpack"),
        (b"\x91" * 5000, "not msgpack"),
        (msgpack.packb({"a": 1}), "not a list"),
        (msgpack.packb([]), "not a list"),
        (msgpack.packb([True]), "not a list"),
        (msgpack.packb(["0", 1]), "not a list"),
        (msgpack.packb([9]), "unknown message number 9"),
        (msgpack.packb([-1, 1]), "unknown message number -1"),
        (msgpack.packb([0]), "Ready has 1 fields, the frame 0"),
        (msgpack.packb([8, 1]), "Stop has 0 fields, the frame 1"),
        (msgpack.packb([0, True]), r"Ready\.pid is not"),
        (msgpack.packb([0, -1]), r"Ready\.pid is not"),
        (msgpack.packb([0, 2**63]), r"Ready\.pid is not"),
        (msgpack.packb([0, 1.0]), r"Ready\.pid is not"),
        (msgpack.packb([1, 1, [1, "2"], []]), r"Compute\.shards is not"),
        (msgpack.packb([1, 1, [[1]], []]), r"Compute\.shards is not"),
        (msgpack.packb([2, 1, 2, 3, 0.5]), r"ShardDone\.loss_sum is not"),
        (msgpack.packb([7, b"bytes", ""]), r"Failed\.reason is not"),
        (b"\x92\x07\xa2\xff\xfe", "not msgpack"),
    ],
)
def test_a_frame_that_is_no_message_is_refused_with_what_is_wrong_in_it(content, reason):
    with pytest.raises(ProtocolError, match=reason):
        decode(content)


def test_a_frame_above_the_size_limit_is_refused_before_it_is_read():
    with pytest.raises(ProtocolError, match=f"frame of {MAX_FRAME_BYTES + 1} bytes"):
        decode(bytes(MAX_FRAME_BYTES + 1))


def test_the_order_for_the_largest_batch_fits_into_a_frame():
    offsets = tuple([LARGEST] * 2**20)
    assert len(encode(m.Compute(1, tuple(range(256)), offsets))) <= MAX_FRAME_BYTES


def decodes_or_refuses(data: bytes) -> bool:
    """Whether the frame is a message; fails on any error but ProtocolError."""
    try:
        message = decode(data)
    except ProtocolError:
        return False
    assert isinstance(message, KINDS)
    return True


def mutated(frame: bytes, rng: np.random.Generator) -> bytes:
    """The frame with a few bytes overwritten, cut out or put in."""
    data = bytearray(frame)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(data) + 1))
        change = int(rng.integers(0, 3))
        if change == 0 and at < len(data):
            data[at] = int(rng.integers(0, 256))
        elif change == 1:
            del data[at : at + int(rng.integers(1, 4))]
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 4)))
    return bytes(data)
