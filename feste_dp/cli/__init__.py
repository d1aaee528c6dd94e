"""The command line: each command loads, calls one function, prints."""
