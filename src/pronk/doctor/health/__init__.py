"""`pronk doctor`: whether this machine can run pronk, line by line, each failure with its remedy.

finding.py    one line of the list
machine.py    Python, processor, memory, disk, folders, and where this runs (WSL, Colab)
versions.py   each library against the range that pronk is tested with
processes.py  trials in processes of their own, with a time limit
trials.py     what is tried there: PyTorch, bf16, FP8, bitsandbytes, Triton, attention, the hub
devices.py    what the trials found, as lines
access.py     whether the hub lets this token read a base
secrets.py    tokens, taken out of everything that is shown
examination.py  all of it in order
"""
