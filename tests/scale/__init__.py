"""The scaling study: its arithmetic on made-up figures, its files, and one real run of it."""
