"""Policy what-if studies: arms, shared luck, intervals, thresholds, and engines that run many runs at once."""
