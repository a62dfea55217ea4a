"""What was tuned, on its way to those who use it; pronk ships only what it has compared.

exporting.py   the story of `pronk export`: one form after another, each made aside, compared, then put in its place
adapter.py     in PEFT's form
merged.py      as a model of its own, in bf16
merging.py     adapter into base, tensor by tensor
gguf.py        as .gguf files for llama.cpp: gguf_writer.py a model, gguf_tokenizer.py its vocabulary, gguf_adapter.py;
               quantizer.py those of types that only llama.cpp writes
ollama.py      as a Modelfile; go_template.py renders what it asks with
llama_cpp.py   a .gguf file as llama.cpp reads it, in a process of its own (llama_cpp_process.py)
licences.py    the files that say on what terms a base may be used
reading.py     what was exported, as the programs read it that it is for
chats.py       a question as those send it who know only the exported files
evidence.py    what a model says on validation rows
parity.py      the gate: what was exported against the run that it came from
tolerance.py   how far the two may differ
record.py      export.json, and what the terminal shows of it
hub.py         a folder as the hub shows it; hub_upload.py what would be uploaded, and the upload
card.py        its model card, from the facts of card_facts.py; terms.py licences, markup.py hostile text in Markdown
try_*.py       `pronk try`: a pretrained model as it is: writing, classifying, translating
"""
