"""`python -m siteswap`."""

import sys

from siteswap.cli import main

sys.exit(main())
