"""Measuring, item by item: the base model and all runs in the same batches.

likelihood.py   loss of the reference answers, in nats per target token
classify.py     classification by label likelihood and by generated answer
choice.py       multiple choice by the likelihood of every choice
answers.py      free answers, to be read as they are, and for the next two to compare
exact.py        short answers that are right or wrong; normal_text.py, when two are the same
similarity.py   free answers beside the reference answers
overlap.py      ROUGE-L and chrF of two texts
forgetting.py   the loss on general text, outside of the data
few_shot.py     the untouched base with examples in its prompt
served.py       a model behind an OpenAI-compatible interface, asked the same
served_items.py what its answers come to
batches.py      which prompts are answered together
"""
