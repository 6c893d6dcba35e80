"""N-gram models: counts of which token follows which."""
