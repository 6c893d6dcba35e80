"""What notebooks and scripts see of a run: its card, its charts as Altair objects, and its tables for pandas.

``run`` is the class ``ecosystem.Run``, a stored run with these methods; ``chart_set`` is what charts of runs and of
studies have in common.
"""
