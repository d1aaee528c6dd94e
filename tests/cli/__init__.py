"""Each kernel pair against its formula, finite differences and the other precision."""
