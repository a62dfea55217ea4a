"""The base model, frozen, and the wide adapter over it.

load.py        embedded model, local folder, .gguf or hub id → model and tokenizer
gguf.py        a .gguf file → a folder of safetensors, tensor by tensor
adapter.py     the wide adapter: every run's LoRA in one product
dropout.py     dropout masks that depend on nothing but run, step, example and place
attention.py   packed attention: no sequence sees another
loss.py        cross-entropy on target tokens only, chunk by chunk
forward.py     a micro-batch through the model
generate.py    label scores and answers from one reading of the prompt
sampling.py    drawing a token: temperature, top-k, top-p
"""
