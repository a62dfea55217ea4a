"""`pronk synthesize`: new examples from seed examples, written by a model, and only those worth keeping.

samples.py    what an example is; seeds, and what is kept out: test items, files to avoid
requests.py   what a model is asked: seeds shown, JSON or a list to go on with
answers.py    what it wrote, as examples; whatever it wrote
nearness.py   whether an example is near one that is known
sieve.py      what is dropped, and why, counted by name
writers.py    the model: a local one (ask/), or one behind an OpenAI-compatible interface
output.py     the file of rows and its summary: append-only, gone on with, refused where it is another's
making.py     the story: rounds of requests until there is enough, or a limit, or no use in going on
estimate.py   what it will cost, before anything is asked
starting.py   from options to all of the above
"""
