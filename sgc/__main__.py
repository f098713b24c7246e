"""``python -m sgc``."""

from sgc.cli import main

main()
