"""The machine and the tools on it.

environment.py   what a study ran on
inspection.py    what stands in a model: modules, types, ranks, bytes
bench.py         pronk and other tools on the same work; its head names the modules it is made of
peers/           the other tools' side of a bench, each run in a process of its own
"""
