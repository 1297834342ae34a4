"""Where do batches lie in memory, and how is the budget kept?"""
