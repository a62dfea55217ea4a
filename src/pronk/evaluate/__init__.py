"""Measuring, item by item: the base model and all runs in the same batches.

likelihood.py   loss of the reference answers, in nats per target token
classify.py     classification by label likelihood and by generated answer
similarity.py   free answers beside the reference answers
overlap.py      ROUGE-L and chrF of two texts
few_shot.py     the untouched base with examples in its prompt
served.py       a model behind an OpenAI-compatible interface, asked the same
served_items.py what its answers come to
batches.py      which prompts are answered together
"""
