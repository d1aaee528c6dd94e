"""Several machines that train as one: a rank of an MPI job on each.

Nothing of it is imported on one machine.
"""
