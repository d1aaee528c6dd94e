"""The same training step by other programs, measured beside feste-dp. Not part of the product."""
