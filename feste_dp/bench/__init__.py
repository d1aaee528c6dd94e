"""What a step costs on this machine, and what the machine could do: measurements, no training results."""
