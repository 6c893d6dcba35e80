"""The entries of a scenario file, each a frozen value that validates itself."""
