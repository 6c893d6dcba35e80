"""The collapse profile of a run: eight definitions of model collapse tested side by side, and the order of its signs.

Schaeffer, Kazdan, Arulandu and Koyejo (2025, arXiv 2503.03150) find eight definitions in the literature and ask that
studies report all of them. The names are those of their figures and of a digest; their text was not read, and the tests
are ours. ``courses`` has the statistics over steps, ``verdicts`` the verdicts, and ``signals`` the order in which
measurements leave their baseline. All are pure functions of the metrics of a run.
"""

from ecosystem.report.profile.verdicts import DEFINITIONS, PROFILE, Definition, profile, size_groups, useless

__all__ = ["DEFINITIONS", "PROFILE", "Definition", "profile", "size_groups", "useless"]
