"""Files for llama.cpp.

form.py         which files
writer.py       a model, tensor by tensor
tokenizer.py    its vocabulary, found by what the tokenizer does
adapter.py      an adapter
quantizer.py    types that only llama.cpp writes
llama_cpp.py    a file as llama.cpp reads it, in a process of its own (llama_cpp_process.py)
"""
