"""Work that is one pass over memory, each piece of it in two forms of one meaning.

Plain PyTorch (`…_plain`) says what is computed and runs anywhere; a Triton kernel (`triton_….py`) runs on GPUs.
Triton is imported when a tensor on a GPU first asks for it.

adamw.py          one update of all runs' adapters, gradient norms and largest weights of each run
"""
