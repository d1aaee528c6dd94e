from click.testing import CliRunner

from benchmarks.generation import line, main, read_bytes
from feste_dp.config.loading import load_config
from feste_dp.model.parameters import parameter_count


def test_every_weight_but_looked_up_tables_is_read_for_a_token():
    tied, untied = load_config("gpt2_87m").model, load_config("tiny").model
    assert read_bytes(tied) == 4 * (parameter_count(tied) - 1024 * 768)
    assert read_bytes(untied) == 4 * (parameter_count(untied) - (64 + 512) * 64)


def test_a_round_is_a_number_and_a_line_has_the_ratio():
    result = CliRunner().invoke(main, ["--one", "feste-dp", "tiny", "--tokens", "20", "--samples", "3"])
    assert result.exit_code == 0 and float(result.output) > 0
    said = line("tiny", {"feste-dp": [30.0, 10.0, 20.0], "transformers": [5.0]}, 1e9, 4e10)
    assert said.startswith("tiny: feste-dp 20.0 (10.0-30.0), transformers 5.0 (5.0-5.0), 4.00 times; ")
    assert said.endswith("20.0 GB/s of weights, 50% of triad")
