"""Runs `python -m mx8shards.convert` as the command `mx8shards convert`."""

from __future__ import annotations

import sys

from mx8shards.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "convert")
    sys.exit(main())
