"""Training: rounds of one optimizer step for every run of a fleet.

fleet.py        the loop
order.py        which examples a step sees
schedule.py     the learning rate at a step
optimizer.py    AdamW for each run over its own rows of the wide adapter
checkpoint.py   adapters in PEFT's format, optimizer state in safetensors
start.py        an adapter to go on with
trackers.py     TensorBoard
"""
