"""A run on disk and its voice: directory, lock, metrics, events, screen, trackers."""
