"""How do other people's data become a dataset? `python -m mx8shards.convert SOURCE …`"""
