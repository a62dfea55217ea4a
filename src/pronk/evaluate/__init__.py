"""Measuring, item by item: the base model and all runs in the same batches.

likelihood.py   loss of the reference answers, in nats per target token
classify.py     classification by label likelihood and by generated answer
similarity.py   free answers beside the reference answers
overlap.py      ROUGE-L and chrF of two texts
batches.py      which prompts are answered together
"""
