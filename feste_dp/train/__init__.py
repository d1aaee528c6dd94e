"""The training run: its directory, its records, what it shows and how it stops."""
