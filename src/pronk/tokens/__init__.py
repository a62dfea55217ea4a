"""From conversations to token ids and loss masks, and from those to packed micro-batches.

prompt.py   the one place where text becomes ids, for training and inference alike
pack.py     sequences of all runs into micro-batches of a fixed token budget
"""
