"""``python -m harness.cli`` is ``stockpot``."""

from harness.cli.main import main

main()
