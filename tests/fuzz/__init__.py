"""Fuzzing: random and mutated input of every sort must be used or refused with a sentence, never end in a traceback."""
