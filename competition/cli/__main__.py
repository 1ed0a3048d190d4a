"""`python -m competition.cli`, the same as the command `marsls`."""

import sys

from competition.cli.app import main

sys.exit(main())
