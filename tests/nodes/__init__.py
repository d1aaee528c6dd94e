"""Training on several machines, each a network namespace of its own."""
