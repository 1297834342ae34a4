"""How do shards come from, and go to, an object store?"""
