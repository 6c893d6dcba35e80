"""Run the command line as ``python -m ecosystem``."""

from ecosystem.cli.main import main

main()
