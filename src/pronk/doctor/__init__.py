"""The machine and the tools on it.

health/          `pronk doctor`: whether this machine can run pronk, line by line
baseline.py      the untouched base with examples in its prompt, before anything is trained
environment.py   what a study ran on
inspection.py    what stands in a model: modules, types, ranks, bytes
ready.py         bases found and examples made, before anything heavy is loaded
checking.py      what would go wrong silently, and the gate before a run; findings.py shows it
plan.py          will it fit: how to train a fleet on a GPU of some size
workload.py      what a fleet has to do, in numbers
calibration.py   one and two layers measured
planned.py       what the planner found, in words
showing.py       `pronk check --show`: examples as training sees them
tokenized.py     `pronk tokens`: a text as a base reads it
new_recipe/      `pronk init`: from data and a base to a commented recipe
bench.py         pronk and other tools on the same work; its head names the modules it is made of
peers/           the other tools' side of a bench, each run in a process of its own
"""
