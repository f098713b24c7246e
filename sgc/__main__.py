"""``python -m sgc``."""

import sys

try:
    from sgc.cli import main
except KeyboardInterrupt:  # the imports take seconds
    sys.exit(130)

main()
