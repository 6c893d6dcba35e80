"""Engines that execute the runs of a study: one process, several, or a Ray cluster."""
