"""What a run is told: the schema of a config, reading and writing it, and what a resume may change."""
