"""Training: rounds of one optimizer step for every run of a fleet.

fleet.py        the loop
order.py        which examples a step sees
schedule.py     the learning rate at a step
optimizer.py    AdamW for each run over its own rows of the wide adapter
checkpoint.py   adapters in PEFT's format, optimizer state in safetensors
start.py        an adapter to go on with
recorder.py     what happens beside the loop: metrics, validation, checkpoints, endings
stopping.py     when a run is at its best, and when to stop
retention.py    which checkpoints stay
trackers.py     TensorBoard, Weights & Biases, MLflow, trackio; background.py keeps training from waiting for them
mirror.py       the study copied to a mounted drive
"""
