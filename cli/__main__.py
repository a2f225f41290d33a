"""Let `python -m cli` be `guerdon`."""

from cli.main import run

run()
