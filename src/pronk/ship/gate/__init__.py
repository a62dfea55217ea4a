"""The gate: what was exported is what was tuned, as far as its readers can tell.

parity.py     the comparison
reading.py    what was exported, as PEFT and transformers read it (llama.cpp: gguf/)
chats.py      a question as those send it who know only the exported files
evidence.py   what a model says on validation rows
tolerance.py  how far the two may differ
"""
