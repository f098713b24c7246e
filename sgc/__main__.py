"""``python -m sgc``."""

import sys

try:
    from sgc.cli import main
except KeyboardInterrupt:  # typer, which answers it otherwise, is not there yet
    sys.exit(130)

main()
