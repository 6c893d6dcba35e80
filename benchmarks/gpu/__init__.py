"""The engine on a GPU against its limits and peers: ``python -m benchmarks --device cuda``."""
