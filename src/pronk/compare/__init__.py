"""Say which run is better, by how much, and whether that could be chance; reads study folders only.

    metrics.py      precision, recall, F1 and the confusion matrix of one run
    statistics.py   two proportions on the same items: Tango's interval, McNemar's test; Holm's adjustment
    resampling.py   paired permutation tests and bootstrap intervals for nll and macro-F1
    sample_size.py  how many items would tell, where the verdict is a tie
    items.py        a run's item results, read from its folder into arrays
    pairs.py        which runs of a study are compared, on which metrics, with what verdict
    overfitting.py  whether a run overfits, from its validation row by row
    votes.py        votes of people and of model judges on pairs of answers; contest.py is what they vote on
    preference.py   win rates and rankings from votes; sure.py when one may stop; agreement.py how far judges agree
    arena.py        what a study's votes come to; arena_words.py the same in sentences
    summary.py      a run's metrics for study.json, from its item results
    baseline.py     `pronk check --baseline`: intervals of single figures, and the table
    terminal.py     the ranking and the verdicts as lines of text
    report.py       report.html, one self-contained file; its parts: sections.py, words.py, charts.py

Start at `pairs.compare_runs` for the figures and at `report.write_report` for the page. Nothing here
loads torch or transformers, so a report opens on a laptop.
"""
