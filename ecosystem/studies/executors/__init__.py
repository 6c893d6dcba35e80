"""Where the runs of a study are computed: one process, several, or a Ray cluster."""
