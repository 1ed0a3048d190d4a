"""Run the command `marsls` as `python -m competition.cli`."""

import sys

from competition.cli import main

sys.exit(main())
