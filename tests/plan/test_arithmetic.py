import pytest

from feste_dp.config.schema import Config, ModelConfig
from feste_dp.plan.arithmetic import (
    flops_formula,
    flops_per_token,
    run_flops,
)

SMALL = {"vocab_size": 256, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 4}
# A block has 48 + 16 + 64 + 64 weights, 12 + 4 + 16 + 4 biases and 4 x 4 of its layer norms, in all 244;
# the head 256 x 4, the last layer norm 8. Each takes 6 operations a token, attention 6 x 2 x 4 x 8 more.
SMALL_FLOPS = 6 * (2 * 244 + 1024 + 8) + 384


def config(**sections) -> Config:
    return Config.model_validate(
        {"model": SMALL, "train": {"steps": 100, "batch_size": 8, "shards": 4}} | sections
    )


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_costs_the_same_with_a_tied_and_an_untied_head(tied):
    assert flops_per_token(ModelConfig(**SMALL, tie_embeddings=tied)) == SMALL_FLOPS == 9504


def test_the_formula_shows_its_numbers():
    assert flops_formula(ModelConfig(**SMALL)) == (
        "6 x 1,520 parameters (1,552 without the 32 of the position embeddings) "
        "+ 6 L C T = 6 x 2 x 4 x 8 for causal attention = 9,504"
    )
    untied = flops_formula(ModelConfig(**SMALL, tie_embeddings=False))
    assert "(2,576 without the 1,056 of the position and input embeddings)" in untied
    gpt2 = ModelConfig(vocab_size=1536, block_size=1024, n_layer=12, n_head=12, n_embd=768)
    assert flops_formula(gpt2).startswith("6 x 86,235,648 parameters (87,022,080 without the 786,432 of the")


def test_a_run_costs_its_tokens_and_a_third_of_those_it_validates_on():
    tokens = 100 * 8 * 8
    assert run_flops(config(eval={"every": 0})) == tokens * SMALL_FLOPS
    # after steps 30, 60, 90 and 100, each 2 batches of 64 tokens
    with_validation = run_flops(config(eval={"every": 30, "batches": 2}))
    assert with_validation == pytest.approx((tokens + 4 * 2 * 64 / 3) * SMALL_FLOPS)
