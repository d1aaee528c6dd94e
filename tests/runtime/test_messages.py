import tracemalloc
from dataclasses import fields

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.runtime import messages as m
from feste_dp.runtime.letterbox import BOX_BYTES, Letterbox
from feste_dp.runtime.messages import (
    MAX_FRAME_BYTES,
    MAX_LOSSES,
    MAX_ORDER_BYTES,
    MAX_TEXT_BYTES,
    Floats,
    ProtocolError,
    decode,
    encode,
)

KINDS = (m.Ready, m.Compute, m.ShardsDone, m.Reduce, m.StripeDone, m.Evaluate, m.UnitsDone, m.Failed, m.Stop)
LARGEST = 2**63 - 1

counts = st.integers(0, LARGEST)
VALUES = {
    int: counts,
    float: st.floats(allow_nan=False),
    str: st.text(max_size=200),
    Floats: st.lists(st.floats(allow_nan=False), max_size=MAX_LOSSES).map(tuple),
}
messages = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(kind, **{field.name: VALUES[field.type] for field in fields(kind)})
)

EXAMPLES = (
    m.Ready(4711, "c0de", "/here"),
    m.Compute(3, 0, 2, 1),
    m.ShardsDone(3, 1, (12.5,), 0.25),
    m.Reduce(3, 0, 7, 8),
    m.StripeDone(3, 0, 7, 0.5),
    m.Evaluate(3, 4, 6, 2, 700, 63),
    m.UnitsDone(3, 4, (1.5, 2.5), 0.125),
    m.Failed("ValueError: no", "Traceback\n  ..."),
    m.Stop(),
)


@given(messages)
def test_every_message_reads_back_as_it_was_written(message):
    assert decode(encode(message)) == message


def test_a_loss_that_is_not_finite_reads_back_as_it_was_written():
    for loss in (float("nan"), float("inf"), float("-inf")):
        assert repr(decode(encode(m.ShardsDone(1, 2, (loss,), 0.5)))) == repr(
            m.ShardsDone(1, 2, (loss,), 0.5)
        )


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
        (msgpack.packb({"a": 1}), "not msgpack"),
        (b"\x92\x00\x80", "not msgpack"),
        (msgpack.packb([0, msgpack.ExtType(5, b"x")]), "not msgpack"),
        (b"\x92\x00\xd6\xff\x00\x00\x00\x00", "not msgpack"),
        (msgpack.packb([]), "not a list"),
        (msgpack.packb([True]), "not a list"),
        (msgpack.packb(["0", 1]), "not a list"),
        (msgpack.packb([1.0, 1]), "not a list"),
        (msgpack.packb([9]), "unknown message number 9"),
        (msgpack.packb([-1, 1]), "unknown message number -1"),
        (msgpack.packb([0]), "Ready has 3 fields, the frame 0"),
        (msgpack.packb([8, 1]), "Stop has 0 fields, the frame 1"),
        (msgpack.packb([0, True, "", ""]), r"Ready\.pid is not"),
        (msgpack.packb([0, -1, "", ""]), r"Ready\.pid is not"),
        (msgpack.packb([0, 2**63, "", ""]), r"Ready\.pid is not"),
        (msgpack.packb([0, 1.0, "", ""]), r"Ready\.pid is not"),
        (msgpack.packb([1, 1, [1], 2, 1]), r"Compute\.first is not"),
        (msgpack.packb([6, 1, 2, [1.0, 2], 0.5]), r"UnitsDone\.loss_sums is not"),
        (msgpack.packb([6, 1, 2, [1.0, "2"], 0.5]), r"UnitsDone\.loss_sums is not"),
        (msgpack.packb([6, 1, 2, [[1.0]], 0.5]), r"UnitsDone\.loss_sums is not"),
        (msgpack.packb([6, 1, 2, [1.0] * (MAX_LOSSES + 1), 0.5]), "not msgpack"),
        (msgpack.packb([2, 1, 2, 3, 0.5]), r"ShardsDone\.loss_sums is not"),
        (msgpack.packb([7, 1, ""]), r"Failed\.reason is not"),
        (msgpack.packb([7, b"bytes", ""]), "not msgpack"),
        (msgpack.packb([7, "x" * (MAX_TEXT_BYTES + 1), ""]), "not msgpack"),
        (b"\x92\x07\xa2\xff\xfe", "not msgpack"),
    ],
)
def test_a_frame_that_is_no_message_is_refused_with_what_is_wrong_in_it(content, reason):
    with pytest.raises(ProtocolError, match=reason):
        decode(content)


def test_a_frame_above_the_size_limit_is_refused_before_it_is_read():
    with pytest.raises(ProtocolError, match=f"frame of {MAX_FRAME_BYTES + 1} bytes"):
        decode(bytes(MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("kind", m.ORDERS)
def test_every_order_is_small_whatever_it_asks_for(kind):
    assert len(encode(kind(*[LARGEST] * len(fields(kind))))) <= MAX_ORDER_BYTES


def test_every_report_of_work_fits_into_a_letterbox():
    losses = (1.5,) * MAX_LOSSES
    longest = m.UnitsDone(LARGEST, LARGEST, losses, 0.5)
    box = Letterbox(np.zeros(BOX_BYTES, np.uint8))
    box.listen()
    assert box.put(encode(longest))


# What a frame announces or holds, for the 15 bytes to 32 KiB that it has: (head, item, count).
BOMBS = {
    "four billion items announced": (b"\x94\x01\x01\xdd\xff\xff\xff\xff", b"", 0),
    "four gigabytes of text announced": (b"\x93\x07\xdb\xff\xff\xff\xff", b"", 0),
    "four gigabytes of bytes announced": (b"\x93\x07\xc6\xff\xff\xff\xff", b"", 0),
    "four billion pairs announced": (b"\x93\x07\xdf\xff\xff\xff\xff", b"", 0),
    "four gigabytes of an extension": (b"\x93\x07\xc9\xff\xff\xff\xff\x05", b"", 0),
    "a million lists announced": (b"\x94\x01\x01\xdd\x00\x10\x00\x00", b"\x91\xc0", 2**14),
    "lists in lists": (b"\x95\x06\x01\x01", b"\xdc\x01\x00" + b"\x91\xc0" * 256, 63),
    "empty maps": (b"\x95\x06\x01\x01\xdc\x01\x00", b"\x80", 2**14),
    "texts": (b"\x95\x06\x01\x01\xdc\x01\x00", b"\xad1234567890abc", 256),
    "lists in lists without end": (b"", b"\x91", MAX_FRAME_BYTES),
    "lists of two lists": (b"", b"\x92\x92\x92\xc0\xc0\x92\xc0\xc0\x92\xc0\xc0", MAX_FRAME_BYTES // 11),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_frame_costs_no_more_memory_than_a_message_may_however_much_it_announces(name):
    head, item, count = BOMBS[name]
    frame = head + item * count
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(frame)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_longest_failure_is_shortened_to_what_a_report_may_be():
    message = m.Failed("é" * 10**6, "😀" * 10**6 + "the end")
    frame = encode(message)
    assert len(frame) <= MAX_FRAME_BYTES
    read = decode(frame)
    assert isinstance(read, m.Failed)
    assert (
        "[...]" in read.reason
        and read.trace.endswith("the end")
        and len(read.trace.encode()) <= MAX_TEXT_BYTES
    )


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
