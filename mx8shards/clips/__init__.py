"""How are clips of videos made positions of a view?"""
