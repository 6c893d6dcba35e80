"""Panels of a report: collapse, distributions, the site map, and documents to read."""
