"""`pronk try`: a pretrained model as it is, before anything is tuned.

generate.py, classify.py, translate.py  the three tasks
models.py  which task a model was made for, and its weights
texts.py   what it is tried on
shown.py   what people and programs see of it
"""
