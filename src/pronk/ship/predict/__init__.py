"""`pronk predict`.

predicting.py   the story
model.py        which model: a run with labels or without, an adapter, a base
rows.py         rows to ids, in windows (what is asked: data/asked.py, as in training)
answers.py      all of a window in a few batches
calibration.py  temperature scaling and its figures; calibrating.py: of a run, kept beside it
journal.py      what is done so far: a window is on the disk or is made again
output.py       the file in the end: every row of the input, in its order
progress.py     how it goes
"""
