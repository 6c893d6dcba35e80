"""The report of a run: one self-contained page that works offline, and its charts as files.

``figures`` turns measurements into tables, ``findings`` tables into sentences, ``exhibits`` what is no chart
(sample texts, tables, how to reproduce) into HTML, ``page`` holds the shell, and ``assemble`` puts all together.
"""

from ecosystem.report.assemble import publish, write_report

__all__ = ["publish", "write_report"]
