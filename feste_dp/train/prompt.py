"""What a sample continues where the config leaves it open: a beginning that the text itself has."""

from feste_dp.config.schema import Config
from feste_dp.data.corpus import SHAKESPEARE
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.data.tokens import TokenData

OF_THE_PLAYS = "HAMLET.\n"
_TOKENS = 4096
"""Tokens from the start of the text that are looked through for words."""
_WORDS, MOST_CHARACTERS = 5, 40


def with_prompt(config: Config, data: TokenData) -> Config:
    """The config with a prompt for its samples: its own, else one out of the training text."""
    if config.sample.prompt:
        return config
    prompt = OF_THE_PLAYS
    if config.data.corpus != SHAKESPEARE:
        head = load_tokenizer(data.tokenizer_path).decode(data.train[:_TOKENS].tolist())
        prompt = first_words(head)
    return config.model_copy(update={"sample": config.sample.model_copy(update={"prompt": prompt})})


def first_words(text: str) -> str:
    """The first words of the first line that has any; of a text without spaces its first characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    words = " ".join(line.split()[:_WORDS])
    if len(words) > MOST_CHARACTERS:
        words = words[:MOST_CHARACTERS].rpartition(" ")[0] or words[:MOST_CHARACTERS]
    return words or text[:1] or " "
