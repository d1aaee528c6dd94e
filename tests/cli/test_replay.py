"""feste-dp replay as its user sees it."""

import json
import math
from pathlib import Path

from feste_dp.cli.commands import cli
from feste_dp.cli.replay import _lines
from feste_dp.replay.replay import Replay
from feste_dp.replay.step_facts import SequenceFacts, TensorFacts
from feste_dp.run.metrics import read_metrics
from tests.cli.conftest import Feste, Place


def test_replay_shows_tensors_sequences_and_text_and_that_the_numbers_are_the_runs(
    place: Place, feste: Feste
) -> None:
    result = feste("replay", place.run, "--step", "7", "--workers", "1")
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[0] == "step 7, computed again from the checkpoint of step 6"
    assert lines[1].endswith(": both as in metrics.csv, to the last digit")
    names = [line.split()[0] for line in lines if line.strip()]
    assert {"wte", "attn_qkv_w", "ln_f_b"} < set(names)
    assert [str(number) for number in range(8)] == [name for name in names if name.isdigit()]
    assert any(line.startswith("sequence ") and "up to its hardest token" in line for line in lines)
    assert "each of its sequences alone" in result.err


def test_json_has_every_number_in_full(place: Place, feste: Feste) -> None:
    content = json.loads(feste("replay", place.run, "--step", "7", "--shard", "2", "--json").out)
    row = read_metrics(place.run / "metrics.csv")[6]
    assert (content["loss"], content["grad_norm"]) == (row.train_loss, row.grad_norm)
    assert content["matches"] is True and content["shard"] == 2 and content["from_step"] == 6
    assert [facts["sequence"] for facts in content["sequences"]] == [4, 5]
    assert len(content["tensors"]) == 16 and all(facts["gradient_norm"] > 0 for facts in content["tensors"])


def test_numbers_that_are_not_the_runs_end_in_status_1(own_run: Path, feste: Feste) -> None:
    metrics = own_run / "metrics.csv"
    row = read_metrics(metrics)[6]
    metrics.write_text(metrics.read_text().replace(repr(row.grad_norm), "0.125"))
    result = feste("replay", own_run, "--step", "7")
    assert result.status == 1
    verdict = result.out.splitlines()[1]
    assert verdict.endswith(f"NOT the run's, which had loss {row.train_loss!r} and norm 0.125")


def a_replay(sequences: list[SequenceFacts], **changes: object) -> Replay:
    tensor = TensorFacts("mlp_fc_w", math.inf, 3.0, 1234, 5.0, [1.0, 2.0, 0.5])
    fields: dict[str, object] = {
        "step": 9,
        "shard": None,
        "from_step": 0,
        "loss": math.nan,
        "grad_norm": math.nan,
        "recorded_loss": None,
        "recorded_grad_norm": None,
        "first_difference": None,
        "shard_loss": None,
        "tensors": [tensor],
        "sequences": sequences,
        "worst_sequence": 3,
        "worst_text": "a\x1b[2Jb\nc",
        "worst_next": "\x07",
    }
    return Replay(**(fields | changes))  # type: ignore[arg-type]


def sequence(number: int, loss: float, origin: str | None = None) -> SequenceFacts:
    return SequenceFacts(number, number // 4, 1000 * number, loss, 0.5, 0, origin, 1000 * number + 3, 9.25)


def test_a_step_that_is_not_finite_is_shown_with_where_it_comes_from_and_text_cannot_move_the_cursor() -> (
    None
):
    lines = _lines(a_replay([sequence(3, math.nan, "mlp_fc of layer 1")]))
    text = "\n".join(lines)
    assert "loss nan (perplexity nan), gradient norm nan: metrics.csv has no row of this step" in lines[1]
    assert "1,234" in text and "  layer 1" in text
    assert "not finite from mlp_fc of layer 1 on" in text
    assert "\x1b" not in text and "\x07" not in text and r"a\x1b[2Jb" in text


def test_of_many_sequences_those_of_the_largest_loss_are_shown_and_nan_comes_first() -> None:
    many = [sequence(number, number / 10) for number in range(40)]
    many[5] = sequence(5, math.nan)
    shown = [line.split()[0] for line in _lines(a_replay(many)) if line[:8].strip().isdigit()]
    assert shown == ["5", *[str(number) for number in range(39, 24, -1)]]


def test_a_difference_on_the_way_is_named() -> None:
    lines = _lines(
        a_replay([sequence(3, 4.0)], recorded_loss=4.0, recorded_grad_norm=1.0, first_difference=4)
    )
    assert "NOT the run's: step 4 on the way differs from metrics.csv" in lines[1]


def test_replay_is_among_the_commands() -> None:
    assert cli.commands["replay"].help
