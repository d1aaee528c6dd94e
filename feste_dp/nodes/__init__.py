"""Several machines that train as one: a rank of an MPI job on each.

On one machine nothing of it is imported but world.py, team.py and link_speed.py.
"""
