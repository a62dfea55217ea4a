"""Memory on a GPU: how much a fleet will take, and what to say when it runs out.

sizes.py    sizes as people write them, the allocator's settings, memory given back between phases
costs.py    bytes and seconds of a micro-batch, as functions of its size: the planner's model
shapes.py   the model's figures from shapes alone, without a GPU
fit.py      the model's figures from measurements of one and two layers
choice.py   the fastest setting that fits; the nearest one when none does
guard.py    running out of memory is one message
"""
