"""Run folders: writing, resuming, branching, reading, auditing."""
