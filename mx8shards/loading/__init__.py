"""How do samples become batches at memory speed, inside a budget? Nothing here is seen by the rooms below."""
