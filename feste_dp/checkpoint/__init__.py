"""Checkpoints on disk: written whole or not at all, verified to the last byte when read."""
