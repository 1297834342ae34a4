"""How is a published dataset inspected, verified, merged and garbage-collected?"""
