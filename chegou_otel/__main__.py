"""`python -m chegou_otel` is `chegou-otel`."""

import sys

from chegou_otel.cli import main

if __name__ == "__main__":
    sys.exit(main())
