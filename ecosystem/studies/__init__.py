"""Policy what-if studies: arms, common random numbers, intervals, thresholds, and engines that execute many runs."""
