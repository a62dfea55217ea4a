"""Say which run is better, by how much, and whether that could be chance; reads study folders only.

    metrics.py      precision, recall, F1 and the confusion matrix of one run
    statistics.py   two proportions on the same items: Tango's interval, McNemar's test; Holm's adjustment
    resampling.py   paired permutation tests and bootstrap intervals for nll and macro-F1
    crossed.py      groups of runs with several seeds: chance in training and in the items
    measures.py     a run's figures, and what each item has to do with them
    sample_size.py  how many items would tell, where the verdict is a tie
    items.py        a run's item results, read from its folder into arrays
    item_by_item.py two runs compared in each metric
    seeds.py        which runs differ in their seed alone, and what the seed does
    pairs.py        which runs and groups of a study are compared, with what verdict
    overfitting.py  whether a run overfits, from its validation row by row
    summary.py      a run's metrics for study.json, from its item results
    baseline.py     `pronk check --baseline`: intervals of single figures, and the table
    terminal.py     the ranking and the verdicts as lines of text
    across.py       `pronk compare`: runs of several studies; across_terminal.py and across_page.py show them
    report.py       report.html, one self-contained file; its parts: sections.py, words.py, charts.py

Start at `pairs.compare_runs` for the figures and at `report.write_report` for the page. Nothing here
loads torch or transformers, so a report opens on a laptop.
"""
