"""How do payloads become pictures? Decoders of payloads, and what is stored so that they have less to do."""
