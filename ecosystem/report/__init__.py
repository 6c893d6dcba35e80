"""The report of a run: one self-contained page that works offline, and its charts as files.

``data`` is what all parts read, ``summaries`` turns measurements into tables of populations, ``findings`` those into
sentences, ``run_charts`` into charts, ``tables`` is what is no chart (sample texts, tables, how to reproduce) as HTML,
``html`` holds the shell of the page, and ``build`` puts all together.
"""

from ecosystem.report.build import publish, write_report

__all__ = ["publish", "write_report"]
