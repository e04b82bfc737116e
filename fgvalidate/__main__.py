"""`python -m fgvalidate`."""

import sys

from fgvalidate.app import main

if __name__ == "__main__":
    sys.exit(main())
