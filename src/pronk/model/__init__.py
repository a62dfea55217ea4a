"""The base model, and what is trained of it: the wide adapter, or all of its weights.

load.py        embedded model, local folder, .gguf or hub id → model and tokenizer
places.py      the cache and the embedded model's file, found without PyTorch
hub.py         what transformers loads, from this machine or the hub; why it cannot, in one message
gguf.py        a .gguf file → a folder of safetensors, tensor by tensor
quantize.py    frozen weights in 4 or 8 bits, and back
products.py    every product with a frozen layer: dense or FP8, alone or as a group
kernels/       formats and element-wise work on a GPU, each with a plain twin
fp8_loading.py a base quantized to FP8 while it is read
adapter.py     the wide adapter: every run's LoRA in one product
saved.py       an adapter on disk: what it is, whether it fits a base
whole.py       all weights of a model behind the same interface
dropout.py     dropout masks that depend on nothing but run, step, example and place
attention.py   packed attention: no sequence sees another
attention_kernels.py  the fastest kernel for it that a GPU has and that is right
attention_padded.py   where there is none: padded by length
determinism.py same bits from run to run
loss.py        cross-entropy on target tokens only, chunk by chunk
recompute.py   layers that are computed again in the backward pass
memory/        what a fleet takes of a GPU, and what to say when that runs out
random_model.py  a base's shape with random weights, to be measured
forward.py     a micro-batch through the model
step.py        forward and backward, replayed as a CUDA graph where that pays
rounding.py    the shapes in which it is recorded; no torch
generate.py    label scores and answers from one reading of the prompt
sampling.py    drawing a token: temperature, top-k, top-p
"""
