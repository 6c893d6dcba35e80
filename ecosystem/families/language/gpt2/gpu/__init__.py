"""GPT-2 on a GPU: compiled kernels, recorded graphs, and the measured choice between stacks and single members."""
