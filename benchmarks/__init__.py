"""Speed of the cohort engine against the way research code does it, as ratios measured in one run."""
