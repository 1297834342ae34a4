"""python -m mx8shards"""

from mx8shards.cli import main

raise SystemExit(main())
