"""``python -m ecosystem`` is the command line."""

from ecosystem.cli import main

main()
