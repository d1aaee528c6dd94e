"""Processes: the coordinator's side, the worker's side, the memory and the messages between them."""
