"""feste-dp: multiprocess data-parallel training of GPT-2-class language models on CPUs."""

__version__ = "0.1.0"
