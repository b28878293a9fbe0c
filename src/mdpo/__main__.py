"""``python -m mdpo``: for launchers such as ``accelerate launch -m mdpo``."""

import sys

from mdpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
