"""The worked example of docs/hugging-face.md, run as it stands there, for a few steps of a small model."""

import re
import shlex
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.tokenizer import train_tokenizer
from feste_dp.run.metrics import read_metrics
from tests.model.hugging_face import make_model

PAGE = Path(__file__).parents[2] / "docs" / "hugging-face.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_gpt2_is_fine_tuned_on_the_plays_and_exported_as_the_page_says(feste, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = train_tokenizer([read_shakespeare()[:200_000]], 1_000, end_of_text=True)
    make_model(vocab_size=1_000, n_positions=64, n_layer=2, n_head=2, n_embd=32).save_pretrained("gpt2")
    Path("gpt2/tokenizer.json").write_bytes(tokenizer.to_json())
    config = blocks("yaml")[0]
    assert "steps: 200" in config and "every: 50" in config
    Path("finetune.yaml").write_text(
        config.replace("steps: 200", "steps: 4").replace("every: 50", "every: 2")
    )
    commands = blocks("sh")[0].splitlines()
    assert [command.split()[1] for command in commands] == ["launch", "generate", "export"]
    for command in commands:
        result = feste(*shlex.split(command)[1:])
        assert (result.status, result.err) == (0, "")
    rows = read_metrics(Path("bard/metrics.csv"))
    assert rows[-1].step == 4 and rows[-1].sample.startswith("HAMLET.\n")
    program = blocks("python")[0]
    shown = []
    exec(program, {"print": shown.append})
    assert shown[0].startswith("HAMLET.\n")
    model = AutoModelForCausalLM.from_pretrained("gpt2-bard")
    ids = torch.tensor([tokenizer.encode("To be, or not to be").tolist()])
    assert AutoTokenizer.from_pretrained("gpt2-bard")("To be, or not to be")["input_ids"] == ids[0].tolist()
    loss = model(ids, labels=ids).loss.item()
    start = AutoModelForCausalLM.from_pretrained("gpt2")
    assert loss != start(ids, labels=ids).loss.item()
