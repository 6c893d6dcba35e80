"""The plan of a run, made before it starts: time, memory and disk."""
