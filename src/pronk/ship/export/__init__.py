"""`pronk export`, and the two forms that transformers and PEFT read.

exporting.py  the story: forms one after another; what a form is
adapter.py    in PEFT's form
merged.py     as a model of its own, in bf16
merging.py    adapter into base, tensor by tensor
licences.py   the files that say on what terms a base may be used
record.py     export.json, and what the terminal shows of it
"""
