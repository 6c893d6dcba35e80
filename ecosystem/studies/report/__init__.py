"""The report of a study: one page that works offline, with the data table of every chart and a description of methods.

``data`` provides the tables and the findings in sentences, ``sections`` the sections of the page, and ``build``
assembles the page.
"""

from ecosystem.studies.report.build import write_study

__all__ = ["write_study"]
