"""From files to conversations, and from conversations to train, validation and test.

conversation.py   the one record type that every format becomes
sources.py        the story of reading: sources → rows → records → one list
tables.py         which table a source is: files.py (.jsonl .json .csv .parquet) or hub.py
detect.py         which format it is, where the recipe does not say
where.py          which rows are kept
formats.py        what the columns of a format mean; turns.py (lists of turns), labels.py (classification),
                  choices.py (multiple choice)
asked.py          rows of which only the question is needed, for `pronk predict`
mix.py            several sources by weight
rows.py, words.py what a row and its problems are; words for people
terminal.py       text that a terminal may show, whatever it holds
questions.py      questions for `pronk generate`
general.py        general text, to see what is forgotten
split.py          duplicates out, then a seeded, balanced split
finding.py        what a check found; checks/ (of rows: repeats, leakage, languages, private things, damage)
shots.py          rows of train as examples in a prompt
samples/          the embedded example data and questions
"""
