"""How files reach the disk and are read: whole, growing, locked, and without trust in what lies there.

Knows no format, and nothing of runs. Functions raise OSError, whose strerror says in words what is wrong.
"""
