"""Where people's documents come from: files, data sets, formal languages and distributions of known truth."""
