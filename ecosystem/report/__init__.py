"""The report of a run: one self-contained page that works offline, and its charts as files.

``data`` is what all parts read; ``summaries`` turns measurements into tables of populations; ``findings`` says them in
sentences, ``run_charts`` draws them, ``tables`` and ``documents`` prepare what is no chart. ``sections`` hands it to
the templates, ``html`` holds their environment and the shell of a page, and ``build`` puts all together.
"""

from ecosystem.report.build import publish, write_report

__all__ = ["publish", "write_report"]
