"""How are progress, statistics and lost samples recorded?"""
