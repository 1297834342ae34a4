"""How is a batch planned: which settings, which shards, which rows, what does it cost?"""
