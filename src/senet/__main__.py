"""``python -m senet`` is the command ``senet``."""

import sys

from senet.cli import main

sys.exit(main())
