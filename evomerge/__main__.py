"""`python -m evomerge` is the command line."""

import sys

from evomerge.cli import main

sys.exit(main())
