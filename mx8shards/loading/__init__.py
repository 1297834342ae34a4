"""How do samples become batches at memory speed, inside a budget? The rooms below do not import this."""
