"""The numerical baseline: what small runs gave when it was last renewed, so that no change of a number goes unseen.

``stored.json`` holds the environment of that time and, for every scenario, the SHA-256 of each file that the commit
records name and the value of each metric. ``python -m tests.baseline`` compares, ``--renew`` stores anew.
"""
