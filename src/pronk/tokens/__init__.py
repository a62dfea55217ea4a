"""From conversations to token ids and loss masks, and from those to packed micro-batches.

prompt.py     the one place where text becomes ids, for training and inference alike
forms.py      the prompt forms alpaca, llama2, llama3
template.py   a base's own chat template, and a user's
special.py    tokens that begin, end and pad
example.py    ids and mask of one conversation
examples.py   those of a study's splits
check/        what is wrong with prompts, tokens and settings
pieces.py     ids as the text that each stands for
show.py       examples as training sees them, for people: show_terminal.py, show_page.py (show.html, show.css)
shots.py      test rows with examples before them
pack.py       sequences of all runs into micro-batches of a fixed token budget
"""
