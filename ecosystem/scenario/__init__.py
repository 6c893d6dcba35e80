"""What an experiment is: the validated value that a scenario file describes, its changes and its consistency."""
