"""Compare the speed of the cohort engine with typical research code, as ratios measured in one run."""
