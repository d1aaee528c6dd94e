"""The arithmetic of a token and of a run. Pure."""

from feste_dp.config.schema import Config, ModelConfig
from feste_dp.model.parameters import layout, parameter_count


def flops_per_token(cfg: ModelConfig) -> float:
    """Forward and backward: 6 per parameter (position embeddings apart) and 6 L C T for causal attention.

    Source: J. Kaplan et al., "Scaling Laws for Neural Language Models" (2020), with half of the attention
    matrix left out as the mask does.
    """
    return 6.0 * multiplied_parameters(cfg) + 6.0 * cfg.n_layer * cfg.n_embd * cfg.block_size


def multiplied_parameters(cfg: ModelConfig) -> int:
    """Parameters that every token is multiplied with: all but the embeddings that are only looked up."""
    positions = next(tensor for tensor in layout(cfg) if tensor.name == "wpe")
    looked_up = positions.stop - positions.start
    if not cfg.tie_embeddings:
        looked_up += cfg.vocab_size * cfg.n_embd
    return parameter_count(cfg) - looked_up


def flops_formula(cfg: ModelConfig) -> str:
    """flops_per_token with its numbers in it, to be printed beside every figure that rests on it."""
    used, all_of_them = multiplied_parameters(cfg), parameter_count(cfg)
    tables = "position embeddings" if cfg.tie_embeddings else "position and input embeddings"
    return (
        f"6 x {used:,} parameters ({all_of_them:,} without the {all_of_them - used:,} of the {tables}) "
        f"+ 6 L C T = 6 x {cfg.n_layer} x {cfg.n_embd} x {cfg.block_size} for causal attention "
        f"= {flops_per_token(cfg):,.0f}"
    )


def run_flops(config: Config) -> float:
    """Arithmetic of the whole run, validation (a third of a training pass) included."""
    tokens = float(config.total_tokens)
    if config.eval.every:
        evaluations = -(-config.train.steps // config.eval.every)
        tokens += evaluations * config.eval.batches * config.tokens_per_step / 3
    return tokens * flops_per_token(config.model)
