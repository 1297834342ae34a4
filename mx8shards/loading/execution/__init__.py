"""Which threads fill batches, and how are the batches handed to the consumer?"""
