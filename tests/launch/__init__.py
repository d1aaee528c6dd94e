"""The recipes: checked by the tools of their trade, and run."""
