"""One side of a bench each, run in a process of its own: `python -m pronk.doctor.peers.NAME WORK RESULT`.

work.py   what both sides are given and what they give back
ours.py   pronk
trl.py    TRL's SFTTrainer with PEFT
"""
