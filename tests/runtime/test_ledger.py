import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.runtime.ledger import Ledger, split_evenly, split_range


@given(st.integers(0, 100), st.lists(st.integers(0, 50), min_size=1, max_size=20, unique=True))
def test_work_is_split_into_contiguous_parts_that_differ_by_one_item_at_most(count, workers):
    parts = split_evenly(range(count), workers)
    assert list(parts) == workers
    assert [item for part in parts.values() for item in part] == list(range(count))
    sizes = {len(part) for part in parts.values()}
    assert max(sizes) - min(sizes) <= 1


def test_more_workers_than_items_leaves_some_without_work():
    assert sorted(map(len, split_evenly([0, 1], [0, 1, 2, 3, 4]).values())) == [0, 0, 0, 1, 1]


@given(st.data())
def test_any_history_of_losses_and_duplicates_ends_with_the_same_results_in_item_order(data):
    items = data.draw(st.lists(st.integers(0, 1000), min_size=1, max_size=16, unique=True))
    ledger: Ledger[int, float] = Ledger(items)
    alive = list(range(data.draw(st.integers(1, 5))))
    next_worker = len(alive)
    assert ledger.untouched and ledger.free() == items
    ledger.assign(split_evenly(ledger.free(), alive))
    accepted = set()
    for _ in range(200):
        if ledger.complete:
            break
        match data.draw(st.sampled_from(["report", "report", "report", "duplicate", "stale", "lose"])):
            case "report":
                worker, item = data.draw(st.sampled_from(held(ledger, alive)))
                assert ledger.done(item, worker, loss_of(item))
                accepted.add((worker, item))
            case "duplicate" if accepted:
                worker, item = data.draw(st.sampled_from(sorted(accepted)))
                assert not ledger.done(item, worker, -1.0)
            case "stale":
                assert not ledger.done(1001, alive[0], -1.0)
            case "lose":
                lost = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
                left = ledger.unfinished(lost)
                assert ledger.release(lost) == left == ledger.free() and ledger.unfinished(lost) == []
                for item in left:
                    assert not ledger.done(item, lost, -1.0)
                alive.append(next_worker)
                next_worker += 1
                ledger.assign(split_evenly(left, alive))
    for worker, item in held(ledger, alive):
        assert ledger.done(item, worker, loss_of(item))
    assert ledger.complete and not ledger.free()
    assert ledger.results() == [loss_of(item) for item in items]


def held(ledger, workers):
    return [(worker, item) for worker in workers for item in ledger.unfinished(worker)]


def test_what_a_lost_worker_said_last_does_not_count_while_another_overwrites_the_same_place():
    ledger: Ledger[int, str] = Ledger(range(4))
    ledger.assign({0: [0, 1], 1: [2, 3]})
    assert ledger.done(2, 1, "first")
    assert ledger.release(1) == [3]
    assert not ledger.done(3, 1, "late report of worker 1, before the item has a holder")
    ledger.assign({0: [3]})
    assert not ledger.done(3, 1, "late report of worker 1, while worker 0 overwrites the slot")
    assert ledger.unfinished(0) == [0, 1, 3] and not ledger.complete
    for item in (0, 1, 3):
        assert ledger.done(item, 0, "again")
    assert ledger.results() == ["again", "again", "first", "again"]


def test_a_released_item_belongs_to_nobody_until_it_is_assigned_again():
    ledger: Ledger[str, int] = Ledger("abc")
    ledger.assign({7: ["a", "b", "c"]})
    ledger.done("b", 7, 1)
    assert ledger.release(7) == ["a", "c"]
    assert ledger.unfinished(7) == [] and ledger.free() == ["a", "c"] and not ledger.untouched
    assert ledger.release(7) == []


@pytest.mark.parametrize("item", [(0, 2), (1, 1), "0"])
def test_a_report_of_what_is_no_item_of_the_phase_is_refused(item):
    ledger: Ledger[object, int] = Ledger([(0, 1), (1, 2)])
    ledger.assign({0: [(0, 1)], 1: [(1, 2)]})
    assert not ledger.done(item, 0, 1) and not ledger.done(item, 1, 1)
    assert not ledger.complete


def test_a_phase_without_work_is_complete():
    assert Ledger([]).complete


def loss_of(item: int) -> float:
    """A report is a function of the item alone, whoever computes it."""
    return item / 8


@pytest.mark.parametrize(("count", "parts"), [(11, 2), (3, 8), (1, 1), (5312, 7)])
def test_a_range_is_cut_into_the_parts_that_a_list_of_it_is(count, parts):
    lists = split_evenly(range(count), range(parts)).values()
    assert split_range(count, parts) == [(part[0], part[-1] + 1) for part in lists if part]
