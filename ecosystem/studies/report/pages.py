"""The templates of pages about studies and frontiers, beside those that all pages share."""

from pathlib import Path

from ecosystem.report.html import environment

PAGES = environment(Path(__file__).with_name("templates"))
