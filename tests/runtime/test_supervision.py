"""Histories of losses, replayed: no process, no clock."""

from feste_dp.runtime.supervision import (
    START_LIMIT,
    STEPS_PER_REPLACEMENT,
    SUSPECT_LIMIT,
    Patience,
    Supervision,
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
