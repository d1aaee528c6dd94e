"""Descriptors in reserve: there when no other is, gone when the run is."""

import errno
import os
import resource
from pathlib import Path

import pytest

from feste_dp.files.descriptors import SpareDescriptors, check_free


def opened():
    return [entry.name for entry in Path("/proc/self/fd").iterdir()]


@pytest.fixture
def none_left():
    """none_left(): from here on this process may open no further descriptor but those it closes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []

    def use_up():
        highest = max(map(int, opened()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))

    yield use_up
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in taken:
        os.close(fd)


@pytest.fixture
def spare():
    spare = SpareDescriptors(4)
    spare.hold()
    yield spare
    spare.release()


def test_what_is_lent_can_be_opened_and_comes_back(spare, none_left):
    none_left()
    for _ in range(2):
        with spare.lent(), spare.lent():
            check_free(4)
            with pytest.raises(OSError, match="Too many open files"):
                check_free(5)
        with pytest.raises(OSError, match="Too many open files"):
            check_free(1)


def test_what_is_kept_from_a_loan_is_missing_until_it_is_closed(spare, none_left):
    none_left()
    with spare.lent():
        kept = os.open(os.devnull, os.O_RDONLY)
    with spare.lent():
        check_free(3)
        os.close(kept)
    with spare.lent():
        check_free(4)


def test_in_need_a_call_is_made_again(spare, none_left):
    none_left()
    assert spare.in_need(lambda: check_free(4)) is None
    with pytest.raises(FileNotFoundError):
        spare.in_need(lambda: os.open("/nowhere", os.O_RDONLY))


def test_other_errors_are_not_tried_again(spare):
    calls = []

    def fail():
        calls.append(1)
        raise OSError(errno.EIO, "")

    with pytest.raises(OSError):
        spare.in_need(fail)
    assert len(calls) == 1


def test_nothing_is_held_before_and_after(none_left):
    before = sorted(opened())
    spare = SpareDescriptors(4)
    spare.hold()
    spare.hold()
    spare.release()
    assert len(opened()) == len(before) + 4
    spare.release()
    assert sorted(opened()) == before
    with spare.lent():
        pass
    assert sorted(opened()) == before
