"""The report of a run: one self-contained page that works offline, and its charts as files.

All modules read ``data``. ``summaries`` aggregates measurements by population, and ``closed_forms`` adds theory.
``findings`` states the results in sentences, ``run_charts`` and ``tail_charts`` draw them, and ``tables`` and
``panels`` prepare the rest. ``sections`` renders the templates, ``html`` sets up Jinja and the shell of a page, and
``build`` assembles and writes the report.
"""

from ecosystem.report.build import publish, write_report

__all__ = ["publish", "write_report"]
