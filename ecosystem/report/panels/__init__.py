"""Panels of a report: total collapse, distributions, maps of the site graph, and sample documents."""
