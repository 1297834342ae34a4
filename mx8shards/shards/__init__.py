"""Which local files make up a dataset, and do they match its index? Snapshots, shards, cache, publication, recovery."""
