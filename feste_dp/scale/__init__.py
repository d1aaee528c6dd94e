"""How training scales with cores on this machine, and why it stops."""
