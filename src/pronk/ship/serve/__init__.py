"""`pronk serve`. The engine is another program; ours is what is around it.

serving.py   the story, from the named runs to the engine's end
order.py     what is served: one base, the models over it
engine.py    which engine; vllm.py, llama.py, transformers.py: its command line
template.py  the form that the runs were trained in, in Jinja; files.py: files for the engine
process.py   its process and its log
health.py    is it ready, and does it ask as `pronk chat` does?
words.py     what people are told
"""
