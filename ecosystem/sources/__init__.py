"""Sources of human documents: files, data sets, formal languages, and distributions whose truth is known exactly."""
