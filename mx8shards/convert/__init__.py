"""How are folders, tars and other sources converted to a dataset? `python -m mx8shards.convert SOURCE …`"""
