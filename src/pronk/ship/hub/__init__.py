"""What others find on the Hugging Face hub.

form.py    a folder as the hub shows it
card.py    its model card, from the facts of facts.py
terms.py   licences
markup.py  hostile text in Markdown
upload.py  what would be uploaded, and the upload
"""
