"""`python -m pileus.server --config FILE` runs a management server."""

import sys

from pileus.server.main import main

sys.exit(main())
