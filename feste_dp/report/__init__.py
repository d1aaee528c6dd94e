"""Seeing runs: one page for a report and for the live dashboard, and a view for the terminal. Reads only."""
