"""``python -m ecosystem`` is the command line."""

from ecosystem.cli.main import main

main()
