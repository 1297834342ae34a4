"""Which threads fill batches, and how do they reach the consumer?"""
