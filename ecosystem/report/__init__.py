"""The report of a run: one self-contained page that works offline, and its charts as files.

All parts read ``data``. ``summaries`` turns measurements into tables of populations, and ``closed_forms`` adds theory.
``findings`` states them in sentences, ``run_charts`` draws them, and ``tables`` and ``documents`` prepare the rest.
``sections`` passes all to the templates, ``html`` holds the environment of templates and the shell of a page, and
``build`` assembles and writes the report.
"""

from ecosystem.report.build import publish, write_report

__all__ = ["publish", "write_report"]
