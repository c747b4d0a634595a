"""`python -m bgert`."""

import sys

from bgert.commands.main import main

sys.exit(main())
