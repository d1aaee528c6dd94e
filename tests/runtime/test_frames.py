import secrets

import pytest

from feste_dp.runtime import frames as frames_module
from feste_dp.runtime import messages as m
from feste_dp.runtime.frames import TELL_EVERY_S, FrameReader

TOKEN = b"0123456789abcdef" * 2
REPORT = m.ShardsDone(3, 1, (12.5,), 0.25)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def told():
    return []


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reader(told, clock):
    return FrameReader(TOKEN, m.REPORTS, m.MAX_FRAME_BYTES, told.append, clock)


def test_a_frame_of_the_run_is_its_message(reader, told):
    assert reader.read([TOKEN, m.encode(REPORT)]) == REPORT
    assert (reader.dropped, told) == (0, [])


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([], "not a frame of this run"),
        ([TOKEN], "not a frame of this run"),
        ([TOKEN, m.encode(REPORT), b""], "not a frame of this run"),
        ([m.encode(REPORT), TOKEN], "not a frame of this run"),
        ([b"", m.encode(REPORT)], "not a frame of this run"),
        ([TOKEN[:-1], m.encode(REPORT)], "not a frame of this run"),
        ([TOKEN + b"0", m.encode(REPORT)], "not a frame of this run"),
        ([TOKEN[:-1] + b"0", m.encode(REPORT)], "not a frame of this run"),
        ([TOKEN, b""], "frame is not msgpack"),
        ([TOKEN, bytes(m.MAX_FRAME_BYTES + 1)], "frame of 32769 bytes, more than 32768"),
        ([TOKEN, m.encode(m.Stop())], "Stop from the wrong side"),
        ([TOKEN, m.encode(m.Compute(3, 1, 2, 1))], "Compute from the wrong side"),
    ],
)
def test_any_other_frame_is_dropped_counted_and_told_of_in_one_line(reader, told, frames, why):
    assert reader.read(frames) is None
    assert reader.dropped == 1
    assert len(told) == 1 and why in told[0] and told[0].isprintable()


def test_a_flood_of_frames_is_one_line_a_minute(reader, told, clock):
    for _ in range(8000):
        clock.now += TELL_EVERY_S / 4096  # exact in floating point
        assert reader.read([b"x" * 32, b"\x91\x00"]) is None
    assert reader.dropped == 8000
    assert [line.split(";")[0] for line in told] == [
        "dropped a frame that came on the run's socket (1 so far)",
        "dropped 4096 frames that came on the run's socket (4097 so far)",
    ]


def test_what_its_owner_has_no_use_for_is_counted_with_the_rest(reader, told):
    reader.drop(m.ProtocolError("ShardsDone in phase idle"))
    assert reader.dropped == 1 and told[0].endswith("the last: ShardsDone in phase idle")


def test_the_token_is_compared_by_the_function_whose_time_tells_nothing(reader, monkeypatch):
    compared = []

    def compare(a, b):
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(frames_module.secrets, "compare_digest", compare)
    assert reader.read([b"wrong", m.encode(REPORT)]) is None
    assert compared == [(b"wrong", TOKEN)]
    assert secrets.compare_digest is compare
