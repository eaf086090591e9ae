"""`python -m nbflow`: the command line."""

import sys

from nbflow.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
