"""Where do local bytes live, and which of them can be believed?"""
