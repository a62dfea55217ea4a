"""`pronk init`: from data and a base to a recipe that says why it is as it is.

making.py    the story: look, ask, choose, verify, write
asking.py    questions to a person, or none where options answer them
reading.py   which formats the data could have, and what stands in it
bases.py     what is known of a base before its weights are there
lengths.py   how long the examples are in its tokens
choosing.py  each setting with its reason
writing.py   the recipe as commented YAML
"""
