"""`python -m labsupport` is the `labsupport` command."""

import sys

from labsupport.cli import main

sys.exit(main())
