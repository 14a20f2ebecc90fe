"""Run the command line as `python -m fewframes.cli`."""

from fewframes.cli.main import main

main()
