"""What the machine is, what it still gives, and what it has counted. Reads /proc and /sys only."""
