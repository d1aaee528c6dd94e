"""Histories of losses, replayed: no process, no clock."""

import math

from feste_dp.runtime.supervision import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    START_LIMIT,
    STEPS_PER_REPLACEMENT,
    SUSPECT_LIMIT,
    Patience,
    Supervision,
    Vacancies,
    Verdict,
)

WHERE = "compute of step 3"


def test_a_lost_worker_is_replaced():
    assert Supervision(2).lost(1, WHERE, "shard 4", was_ready=True) == Verdict(True)


def test_a_piece_of_work_that_has_ended_three_workers_ends_the_run():
    supervision = Supervision(4)
    verdicts = [supervision.lost(w, WHERE, "shard 4", was_ready=True) for w in range(SUSPECT_LIMIT)]
    assert [v.replace for v in verdicts] == [True, True, False]
    assert verdicts[-1].end == "shard 4 in compute of step 3 has ended 3 workers"


def test_other_pieces_and_the_same_one_of_a_later_step_do_not_add_up():
    supervision = Supervision(4)
    for shard in range(4):
        assert supervision.lost(0, WHERE, f"shard {shard}", was_ready=True).replace
    for _ in range(SUSPECT_LIMIT + 1):
        assert supervision.lost(0, WHERE, "shard 9", was_ready=True).end is None
        supervision.step_done()


def test_a_worker_that_fails_to_start_three_times_in_succession_is_given_up():
    supervision = Supervision(4)
    for _ in range(START_LIMIT - 1):
        assert supervision.lost(2, "start-up", None, was_ready=False) == Verdict(True)
    assert supervision.lost(2, "start-up", None, was_ready=False) == Verdict(False)
    assert supervision.lost(3, "start-up", None, was_ready=False) == Verdict(True)


def test_a_start_that_succeeds_forgets_those_that_failed():
    supervision = Supervision(4)
    for _ in range(3 * START_LIMIT):
        assert supervision.lost(2, "start-up", None, was_ready=False).replace
        supervision.ready(2)
        for _ in range(STEPS_PER_REPLACEMENT):
            supervision.step_done()


def test_replacements_run_out_when_losses_come_faster_than_steps():
    supervision, replaced = Supervision(2), 0
    for _ in range(100):
        replaced += supervision.lost(0, "the wait for work", None, was_ready=True).replace
        supervision.step_done()
    assert 100 / STEPS_PER_REPLACEMENT <= replaced < 30


def test_a_loss_now_and_then_is_always_replaced():
    supervision = Supervision(1)
    for _ in range(1000):
        assert supervision.lost(0, WHERE, "shard 0", was_ready=True).replace
        for _ in range(STEPS_PER_REPLACEMENT):
            supervision.step_done()


def test_patience_grows_with_the_longest_piece_of_its_kind():
    patience = Patience()
    assert patience.seconds("compute") == 30.0
    patience.done("compute", 0.001)
    assert patience.seconds("compute") == 1.0
    patience.done("compute", 2.0)
    patience.done("compute", 1.0)
    assert patience.seconds("compute") == 10.0
    assert patience.seconds("reduce") == 30.0


def test_a_vacant_place_is_tried_again_after_pauses_that_double_up_to_a_minute():
    vacancies, now, pauses = Vacancies(), 100.0, []
    for _ in range(10):
        vacancies.failed(3, now)
        assert vacancies.due(vacancies.next_try - 0.01) == []
        assert vacancies.due(vacancies.next_try) == [3]
        pauses.append(vacancies.next_try - now)
        now = vacancies.next_try
    assert pauses[:4] == [FIRST_PAUSE_S * 2**i for i in range(4)]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_place_that_is_filled_is_tried_no_more_and_begins_anew_once_its_worker_was_ready():
    vacancies = Vacancies()
    for worker in (1, 2, 2):
        vacancies.failed(worker, 0.0)
    vacancies.fill(2)
    assert vacancies.due(math.inf) == [1]
    vacancies.failed(2, 0.0)
    assert vacancies.due(FIRST_PAUSE_S) == [1]
    vacancies.fill(2)
    vacancies.ready(2)
    vacancies.failed(2, 0.0)
    assert vacancies.due(FIRST_PAUSE_S) == [1, 2]
    vacancies.clear()
    assert vacancies.next_try == math.inf
