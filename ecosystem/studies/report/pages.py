"""The templates of the reports of studies and frontiers, in addition to those that all pages share."""

from pathlib import Path

from ecosystem.report.html import environment

PAGES = environment(Path(__file__).with_name("templates"))
