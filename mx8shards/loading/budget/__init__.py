"""Where are batches in memory, and how is the memory limit kept?"""
