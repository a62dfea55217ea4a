"""What was tuned, on its way to those who use it; pronk ships only what it has compared.

export/   `pronk export`: one form after another, each made aside, compared, then put in its place
gate/     what was exported, as the programs read it that it is for, against the run that it came from
gguf/     the form for llama.cpp
ollama/   the form for Ollama, over a file of gguf/
hub/      the form for the Hugging Face hub, with a model card; the upload
serve/    `pronk serve`: runs behind an OpenAI-compatible server
predict/  `pronk predict`: a label, a choice or a text for each row of a file
trying/   `pronk try`: a pretrained model as it is
"""
