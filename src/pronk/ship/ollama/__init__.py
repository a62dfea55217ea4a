"""A Modelfile for Ollama.

form.py         the file: model, template in Go's language, stop words, parameters
go_template.py  renders what Ollama would ask with
"""
