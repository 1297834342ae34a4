"""How does the Loader make batches from samples within a memory limit? No lower layer imports this package."""
