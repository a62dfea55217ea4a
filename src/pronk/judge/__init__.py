"""`pronk judge`: a model reads two answers to one question and says which is better, in both orders.

prompt.py     what it is asked
verdict.py    what counts as a verdict
"""
