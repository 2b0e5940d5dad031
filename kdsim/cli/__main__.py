"""`python -m kdsim.cli`."""

import sys

from kdsim.cli.entry import main

sys.exit(main())
