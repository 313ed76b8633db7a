"""``python -m harness.cli`` is ``stockpot``."""

from harness.cli.start import start

start()
