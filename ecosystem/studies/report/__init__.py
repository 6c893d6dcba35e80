"""The report of a study: one page that works offline, with the table behind every picture and the methods in words.

``data`` holds what all parts read and the findings in sentences, ``sections`` the parts of the page, and ``build`` puts
all together.
"""

from ecosystem.studies.report.build import write_study

__all__ = ["write_study"]
