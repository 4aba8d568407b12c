"""``python -m dpa2``: the same as the ``dpa2`` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
