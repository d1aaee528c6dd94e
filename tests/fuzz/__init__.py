"""Bytes from nowhere against every reader of the program."""
