"""python -m smtpd_core"""

from __future__ import annotations

import sys

from smtpd_core.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
