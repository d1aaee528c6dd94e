"""GPT-2: its parameters, its forward and backward pass, and drawing text from it."""
