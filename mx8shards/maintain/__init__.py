"""How is a published dataset looked at, checked, joined and cleaned?"""
