"""What does `python -m mx8shards.convert` do? It runs `mx8shards convert`."""

from __future__ import annotations

import sys

from mx8shards.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "convert")
    sys.exit(main())
