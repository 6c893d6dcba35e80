"""The simulation held against the closed forms of the literature."""
