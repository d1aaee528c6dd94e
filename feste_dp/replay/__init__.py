"""A step of a run again, to find out why it went as it did."""
