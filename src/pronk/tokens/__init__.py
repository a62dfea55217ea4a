"""From conversations to token ids and loss masks, and from those to packed micro-batches.

prompt.py     the one place where text becomes ids, for training and inference alike
forms.py      the prompt forms alpaca, llama2, llama3
template.py   a base's own chat template, and a user's
special.py    tokens that begin, end and pad
example.py    ids and mask of one conversation
examples.py   those of a study's splits
shots.py      test rows with examples before them
pack.py       sequences of all runs into micro-batches of a fixed token budget
"""
