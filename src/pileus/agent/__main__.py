"""`python -m pileus.agent --config FILE`."""

import sys

from pileus.agent.main import main

if __name__ == "__main__":
    sys.exit(main())
