"""The machine and the tools on it.

environment.py   what a study ran on
inspection.py    what stands in a model: modules, types, ranks, bytes
bench.py         pronk and TRL on the same work
peers/           the other tools' side of a bench, each run in a process of its own
"""
