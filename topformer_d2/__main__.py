"""`python -m topformer_d2` is the command `topformer`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
