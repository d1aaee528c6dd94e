import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.runtime.ledger import Ledger, numbers_of, split_range


@given(st.integers(0, 100), st.integers(1, 20))
def test_a_range_is_split_into_contiguous_parts_that_differ_by_one_item_at_most(count, parts):
    runs = split_range(count, parts)
    assert items_of(runs) == list(range(count))
    sizes = [stop - first for first, stop in runs]
    assert len(runs) == min(count, parts) and (not sizes or max(sizes) - min(sizes) <= 1 <= min(sizes))


def test_the_first_deal_gives_everybody_an_equal_part_and_fewer_items_than_workers_some_nothing():
    assert Ledger(8).deal([0, 1, 5], 3) == {0: (0, 2), 1: (2, 5), 5: (5, 8)}
    assert Ledger(2).deal([3, 4, 5], 3) == {3: (0, 1), 4: (1, 2)}


@given(st.data())
def test_any_history_of_losses_and_duplicates_ends_with_the_same_results_in_item_order(data):
    count = data.draw(st.integers(1, 40))
    ledger = Ledger(count)
    workers = data.draw(st.integers(1, 5))
    alive, given_out = list(range(workers)), {}
    next_worker, accepted = workers, []
    for _ in range(300):
        if ledger.complete:
            break
        idle = [worker for worker in alive if not ledger.holds(worker)]
        if ledger.has_free and idle:
            for worker, (first, stop) in ledger.deal(idle, workers).items():
                given_out[worker] = list(range(first, stop))
        busy = [worker for worker in alive if ledger.holds(worker)]
        match data.draw(st.sampled_from(["report", "report", "report", "duplicate", "stale", "lose"])):
            case "report":  # a run of what the worker has, not always the first of it
                worker = data.draw(st.sampled_from(busy))
                items = given_out[worker]
                place = data.draw(st.integers(0, min(1, len(items) - 1)))
                stop = place + 1
                while stop < len(items) and items[stop] == items[stop - 1] + 1 and data.draw(st.booleans()):
                    stop += 1
                first, last = items[place], items[stop - 1] + 1
                assert ledger.done(worker, first, last, losses_of(first, last), 0.5)
                accepted.append((worker, first, last))
                del items[place:stop]
            case "duplicate" if accepted:
                worker, first, last = data.draw(st.sampled_from(accepted))
                assert not ledger.done(worker, first, last, [-1.0] * (last - first))
            case "stale":
                assert not ledger.done(alive[0], count, count + 1, [-1.0])
                assert not ledger.done(next_worker, 0, 1, [-1.0])
            case "lose":
                lost = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
                left = given_out.pop(lost, [])
                assert items_of(ledger.release(lost)) == left and not ledger.holds(lost)
                for item in left:
                    assert not ledger.done(lost, item, item + 1, [-1.0])
                alive.append(next_worker)
                next_worker += 1
    while not ledger.complete:
        if ledger.has_free:
            idle = [worker for worker in alive if not ledger.holds(worker)]
            for worker, (first, stop) in ledger.deal(idle, workers).items():
                given_out[worker] = list(range(first, stop))
        for worker in alive:
            for item in given_out.pop(worker, []):
                assert ledger.done(worker, item, item + 1, losses_of(item, item + 1))
    assert not ledger.has_free and not any(map(ledger.holds, alive))
    assert ledger.losses() == losses_of(0, count)
    assert sum(ledger.counts.values()) == count


def test_what_a_lost_worker_said_last_does_not_count_while_another_overwrites_the_same_place():
    ledger = Ledger(4)
    assert ledger.deal([0, 1], 2) == {0: (0, 2), 1: (2, 4)}
    assert ledger.done(1, 2, 3, [1.0])
    assert ledger.release(1) == [(3, 4)]
    assert not ledger.done(1, 3, 4, [9.0]), "before the item has a holder"
    assert ledger.done(0, 0, 2, [2.0, 3.0])
    assert ledger.deal([0], 2) == {0: (3, 4)}
    assert not ledger.done(1, 3, 4, [9.0]), "while worker 0 overwrites the slot"
    assert not ledger.complete
    assert ledger.done(0, 3, 4, [4.0])
    assert ledger.complete and ledger.losses() == [2.0, 3.0, 1.0, 4.0]


def test_what_a_lost_worker_left_is_dealt_in_ever_smaller_parts_so_that_its_replacement_gets_some():
    ledger = Ledger(2_000_000)
    ledger.deal([0, 1], 2)
    ledger.done(0, 0, 1_000_000, [0.5] * 1_000_000)
    ledger.release(1)
    parts = []
    while ledger.has_free:
        ((first, stop),) = ledger.deal([0], 2).values()
        parts.append(stop - first)
        assert ledger.done(0, first, stop, [0.5] * (stop - first))
    assert ledger.complete and sum(parts) == 1_000_000
    assert parts == sorted(parts, reverse=True) and parts[0] == 250_000 and parts[-4:] == [1] * 4
    assert len(parts) < 100


def test_a_report_is_looked_up_among_the_runs_of_its_worker_alone_however_many_items_there_are():
    """What a report costs: nothing that grows with the items is walked through."""
    ledger = Ledger(1_000_000)
    ledger.deal(range(4), 4)
    for worker in range(4):
        for report in range(100):
            first = worker * 250_000 + 250 * report
            assert ledger.done(worker, first, first + 250, [0.25] * 250)
            assert len(ledger._held[worker]) == 1 and not ledger._free


def test_a_report_that_overtook_another_leaves_a_gap_that_the_other_closes():
    ledger = Ledger(6)
    ledger.deal([0], 1)
    assert ledger.done(0, 2, 4, [2.0, 3.0])
    assert not ledger.done(0, 1, 3, [9.0, 9.0]), "half of it is done"
    assert ledger.done(0, 0, 2, [0.0, 1.0]) and ledger.holds(0)
    assert ledger.done(0, 4, 6, [4.0, 5.0]) and not ledger.holds(0)
    assert ledger.losses() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("run", [(1, 1), (2, 1), (0, 3), (-1, 1), (2, 3), (2**62, 2**62 + 1)])
def test_a_report_of_what_is_no_item_of_the_worker_is_refused(run):
    ledger = Ledger(3)
    ledger.deal([0, 1], 2)
    assert not ledger.done(0, *run)
    assert ledger.done(0, 0, 1) and not ledger.complete


def test_a_phase_without_work_is_complete():
    assert Ledger(0).complete and Ledger(0).losses() == []


def test_a_line_names_the_items_of_a_run_by_its_ends():
    assert numbers_of([(0, 1)]) == "0"
    assert numbers_of([(0, 2), (5, 4001)]) == "0, 1, 5 to 4000"


def losses_of(first: int, last: int) -> list[float]:
    """A report is a function of the items alone, whoever computes them."""
    return [item / 8 for item in range(first, last)]


def items_of(runs) -> list[int]:
    return [item for first, stop in runs for item in range(first, stop)]
