"""pronk: fine-tune Llama models on the GPU you have, and know whether it helped."""

__version__ = "0.1.0"
