"""From files to conversations, and from conversations to train, validation and test.

conversation.py   the one record type that every format becomes
sources.py        reading files of each format, with errors that name file and line
questions.py      questions for `pronk generate`
split.py          duplicates out, then a seeded, balanced split
samples/          the embedded example data and questions
"""
