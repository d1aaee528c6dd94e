"""Greedy text from feste-dp and from transformers, by turns on the same cores: see --help.

Random weights in float32, one prompt of three tokens, the time from the first token drawn to the last. Each
run is a process of its own; a figure is the median over the rounds.
"""

import json
import statistics
import subprocess
import sys
import time

import click

from feste_dp.config.loading import load_config
from feste_dp.config.schema import ModelConfig
from feste_dp.machine.cpus import cpu_name, usable_cores
from feste_dp.model.choosing import Choice
from feste_dp.model.decoder import Decoder, decoding_threads
from feste_dp.model.parameters import initial_params, layout, view_params
from feste_dp.model.sampling import Drawing
from feste_dp.plan.yardsticks import memory_bytes_per_second

PROMPT = [1, 2, 3]
_YARDSTICK_BYTES = 1 << 31


def read_bytes(cfg: ModelConfig) -> int:
    """What must be read of the weights for a token: all but the tables that rows are looked up in."""
    looked_up = {"wpe"} | (set() if cfg.tie_embeddings else {"wte"})
    return 4 * sum(t.stop - t.start for t in layout(cfg) if t.name not in looked_up)


def ours(cfg: ModelConfig, tokens: int, samples: int) -> float:
    """Tokens a second, over all samples."""
    params = initial_params(cfg, 1)
    decoder = Decoder(cfg, view_params(params, cfg), samples, len(PROMPT) + tokens, decoding_threads(cfg))
    for count in (8, tokens):  # the first warms up
        drawing = Drawing(decoder, cfg, [PROMPT], samples, Choice(0.0), seed=1)
        drawing.advance()
        started = time.perf_counter()
        for _ in range(count - 1):
            drawing.advance()
    return samples * (tokens - 1) / (time.perf_counter() - started)


def transformers(cfg: ModelConfig, tokens: int, samples: int) -> float:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(usable_cores())
    settings = GPT2Config(
        vocab_size=cfg.vocab_size, n_positions=cfg.block_size, n_layer=cfg.n_layer, n_head=cfg.n_head,
        n_embd=cfg.n_embd, tie_word_embeddings=cfg.tie_embeddings,
        bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(settings).eval()
    prompt = torch.tensor([PROMPT] * samples)
    seconds = []
    with torch.inference_mode():
        for count in (8, 1, tokens):
            started = time.perf_counter()
            out = model.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False)
            seconds.append(time.perf_counter() - started)
            assert out.shape[1] == len(PROMPT) + count
    return samples * (tokens - 1) / (seconds[2] - seconds[1])


WHO = {"feste-dp": ours, "transformers": transformers}


@click.command()
@click.option(
    "--config", "configs", multiple=True, default=["medium", "gpt2_87m", "gpt2_124m"], show_default=True
)
@click.option("--tokens", default=100, show_default=True)
@click.option("--samples", default=1, show_default=True, help="Texts at once.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--one", nargs=2, hidden=True)
def main(
    configs: tuple[str, ...], tokens: int, samples: int, rounds: int, one: tuple[str, str] | None
) -> None:
    """Tokens a second of greedy text."""
    if one is not None:
        who, config = one
        click.echo(json.dumps(WHO[who](load_config(config).model, tokens, samples)))
        return
    cores = usable_cores()
    bandwidth = memory_bytes_per_second(cores, _YARDSTICK_BYTES, 1.0)
    click.echo(f"{cpu_name()}, {cores} cores, triad {bandwidth / 1e9:.1f} GB/s; {samples} at once, tokens/s")
    for config in configs:
        found: dict[str, list[float]] = {who: [] for who in WHO}
        for _ in range(rounds):
            for who, rates in found.items():
                rates.append(in_a_process(who, config, tokens, samples))
        click.echo(line(config, found, read_bytes(load_config(config).model) / samples, bandwidth))


def in_a_process(who: str, config: str, tokens: int, samples: int) -> float:
    command = [sys.executable, "-m", "benchmarks.generation", "--one", who, config]
    options = ["--tokens", str(tokens), "--samples", str(samples)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def line(config: str, found: dict[str, list[float]], bytes_a_token: float, bandwidth: float) -> str:
    ours, theirs = (statistics.median(found[who]) for who in WHO)
    rates = ", ".join(
        f"{who} {statistics.median(each):,.1f} ({min(each):,.1f}-{max(each):,.1f})"
        for who, each in found.items()
    )
    moved = bytes_a_token * ours
    share = f"{moved / 1e9:.1f} GB/s of weights, {moved / bandwidth:.0%} of triad"
    return f"{config}: {rates}, {ours / theirs:.2f} times; {share}"


if __name__ == "__main__":
    main()
