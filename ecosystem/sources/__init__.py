"""Sources of human documents: files, data sets, formal languages, and distributions that are known exactly."""
