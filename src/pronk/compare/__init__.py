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
    votes.py        votes of people and of model judges on pairs of answers; contest.py is what they vote on
    preference.py   win rates and rankings from votes; sure.py when one may stop; agreement.py how far judges agree
    arena.py        what a study's votes come to; arena_words.py the same in sentences (arena_texts.py)
    summary.py      a run's metrics for study.json, from its item results
    baseline.py     `pronk check --baseline`: intervals of single figures, and the table
    terminal.py     the ranking and the verdicts as lines of text
    across.py       `pronk compare`: runs of several studies; across_terminal.py and across_page.py show them
    report.py       report.html, one self-contained file; its parts:
                    languages/ every fixed text, English and Korean; words.py numbers; charts.py, report.css
                    tables.html the tables that its page shares with that of `pronk compare`
                    conclusion.py first words and limits; axes.py, axis_views.py what settings do; seed_view.py
                    quality.py cost and Pareto front; flips.py by class and by item; sections.py all other tables

Start at `pairs.compare_runs` for the figures and at `report.write_report` for the page. Nothing here
loads torch or transformers, so a report opens on a laptop.
"""
