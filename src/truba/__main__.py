"""`python -m truba`: the command line."""

from truba.cli.main import main

main(prog_name="truba")
