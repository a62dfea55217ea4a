"""The report in English. METRICS and VERDICTS are what terminal, Python and `pronk check --baseline` show too."""

METRICS = {  # in the order in which they are shown
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "weighted_f1": "Weighted F1",
    "generated_accuracy": "Accuracy, generated",
    "generated_macro_f1": "Macro-F1, generated",
    "unparsable": "Unparsable answers",
    "choice_accuracy": "Accuracy of choices",
    "choice_accuracy_normalised": "Accuracy of choices, by length",
    "exact_match": "Exact answers",
    "exact_unparsable": "Answers with nothing to compare",
    "nll": "Loss (nats per token)",
    "perplexity": "Perplexity",
    "bits_per_byte": "Bits per byte",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "unended": "Answers without an end",
    "answer_length": "Length of answers (characters)",
    "empty_answers": "Empty answers",
    "forgetting_nll": "Loss on general text (nats per token)",
    "forgetting_perplexity": "Perplexity of general text",
}
VERDICTS = {"better": "▲ better", "worse": "▼ worse", "tie": "= tie"}
AXES = {
    "train.learning_rate": "Learning rate",
    "adapter.rank": "Rank",
    "adapter.alpha": "Alpha",
    "adapter.dropout": "Dropout",
    "adapter.targets": "Adapted layers",
    "train.epochs": "Epochs",
    "train.batch_size": "Batch size",
    "train.max_steps": "Steps",
    "train.seed": "Seed",
    "base": "Base",
    "quantize": "Quantization",
}
FACTS = {
    "train": "train",
    "validation": "validation",
    "test": "test",
    "duplicates_removed": "duplicates removed",
    "contradictory_removed": "contradictory removed",
    "same_opening": "same opening",
    "truncated_answers": "truncated answers",
    "examples_in_the_prompt": "examples in the prompt",
    "examples_left_out": "examples left out",
    "platform": "platform",
    "device": "device",
    "dtype": "dtype",
    "attention": "attention",
}
TEXTS = {
    "count.run": "{n} run|{n} runs",
    "count.more-model": "{n} more model|{n} more models",
    "count.item": "{n} test item|{n} test items",
    "count.example": "{n} example|{n} examples",
    "count.comparison": "{n} comparison|{n} comparisons",
    "count.difference": "{n} difference|{n} differences",
    "count.tie": "{n} tie|{n} ties",
    "count.seed": "{n} seed|{n} seeds",
    "count.setting": "{n} setting|{n} settings",
    "list.more": "{names} and {n} more",
    "interval": "{low} to {high}",
    "seconds": "{seconds} s",
    "minutes": "{minutes} min {seconds} s",
    "hours": "{hours} h {minutes} min",
    "the-test-items": "the test items",
    "base": "base",
    "base.shots": "untouched base, {examples} in its prompt",
    "best": "best",
    "row.seeds": "{name} ({n} seeds)",
    "row.alike": "{name} and seeds alike",
    "row.asked": "{name} (as asked in {study})",
    "row.examples": "{name}, {n} examples",
    "status.failed": "failed",
    "status.interrupted": "interrupted",
    # the head of the page
    "title": "{name} – pronk study",
    "eyebrow": "pronk study",
    "nothing-yet": "No tuned run has finished with results, so there is nothing to compare yet.",
    "answers-only": "The runs wrote answers and nothing was scored, so this says nothing about which is better: their"
    " answers stand side by side below. <code>pronk arena</code> lets people vote on them blind.",
    "gain.accuracy": "<b>{run}</b> answers {value} of {items} correctly",
    "gain.nll": "<b>{run}</b> needs {value} nats per target token on {items}",
    "gain.other": "<b>{run}</b> reaches a {metric} of {value} on {items}",
    "gain.no-base": "{gain}; the base was not evaluated, so this says nothing about a gain.",
    "gain.base": "{gain}, the base {value}",
    "gain.perplexities": "{gain} (perplexity {run} against {base})",
    "gain.not-compared": "{gain}.",
    "gain.better": "{gain}: a difference of {difference} (95% interval {interval}), more than chance explains.",
    "gain.worse": "{gain}: a difference of {difference} (95% interval {interval}): worse, by more than chance"
    " explains.",
    "gain.tie": "{gain}: a difference of {difference} (95% interval {interval}), which chance could explain: a tie.",
    "gain.tie-among": "{gain}: a difference of {difference} (95% interval {interval}), which chance could explain"
    " among {comparisons}: a tie.",
    "few-shot.better": "With {examples} in its prompt the untouched base reaches {value}; the run is better than that.",
    "few-shot.worse": "With {examples} in its prompt the untouched base reaches {value}; that is better than the"
    " run, so no fine-tuning is needed for it.",
    "few-shot.tie": "With {examples} in its prompt the untouched base reaches {value}; that the run differs from"
    " that could be chance.",
    "few-shot.not-compared": "With {examples} in its prompt the untouched base reaches {value}.",
    "lead.one": "Its lead over the other tuned run is more than chance explains.",
    "lead.all": "Its lead over all {n} other tuned runs is more than chance explains.",
    "lead.tie-one": "Its lead over the other tuned run could be chance.",
    "lead.tie-all": "Its lead over all {n} other tuned runs could be chance.",
    "lead.tie-some": "Its lead over {names} could be chance.",
    "needed.never": "No number of test items that you will ever have would tell.",
    "needed.one": "You would need about {n} test items to tell.",
    "needed.first": "The first of these takes about {n} test items to tell, the last more than anyone has.",
    "needed.range": "You would need about {first} test items to tell the first of these, {last} for all.",
    "tally.all": "Each of the {n} tuned runs is better than its base beyond chance.",
    "tally.some": "Of the {n} tuned runs, better than their base beyond chance: {better}; not to be told from it:"
    " {ties}; worse: {worse}.",
    "ties.none": "Of {differences} tested, none is a tie.",
    "ties.one": "Of {differences} tested, 1 is a tie.",
    "ties.many": "Of {differences} tested, {n} are ties.",
    "unfinished": "{runs} did not finish.",
    # what the study does not say
    "limits.title": "What this does not say",
    "limits.intervals": "Intervals are 95% and unadjusted: each stands for itself. Verdicts allow for all"
    " {comparisons} of this study (Holm), so an interval can leave out zero and the verdict still be a tie.",
    "limits.ties": "A tie means that {items} cannot tell, not that the runs are equal.",
    "limits.chosen": "The best run was chosen by these same test items, so it looks a little better here than it is.",
    "limits.seeds": "Every setting was trained with one seed: how much another seed would change was not assessed.",
    "limits.validation": "Overfitting was not assessed for {runs}.",
    "limits.generated": "Only the likelihood of answers was scored: what the runs write when asked was not assessed.",
    "limits.labels-only": "Losses tell how expected the reference answers were; whether what the runs write is"
    " right was not assessed.",
    "limits.unfinished": "Of runs that did not finish nothing is known.",
    "limits.data": "All of this was measured on one data set and one split ({items}): other data, or another split,"
    " can say otherwise.",
    # ranking
    "ranking.title": "Ranking",
    "ranking.note": "By {metric}. “Against its base” is the difference on the same test items, judged after Holm’s"
    " adjustment.",
    "ranking.unscored": "The models wrote answers, which are counted here and not scored.",
    "ranking.region": "Ranking of the runs",
    "ranking.against": "Against its base",
    "ranking.overfitting": "Overfitting",
    "run": "Run",
    "runs": "Runs",
    "failure": "<b>{run}</b> {status}",
    "failure.message": '<b>{run}</b> {status}: <span lang="en">{message}</span>',
    "failure.failed": "failed",
    "failure.interrupted": "was interrupted",
    # comparisons
    "comparisons.title": "Comparisons",
    "comparisons.note": "Each difference is the second run minus the first, item by item on the same test items."
    " Intervals are 95% and <b>unadjusted</b>: each stands for itself. Verdicts go by the adjusted p, which allows"
    " for all {family} comparisons of this study, so an interval can exclude zero and the verdict still be a tie.",
    "comparisons.note-one": "The difference is the second run minus the first, item by item on the same test items.",
    "comparisons.region": "Comparisons by {metric}",
    "comparisons.verdict": "Verdict on the second",
    "comparisons.difference": "Difference",
    "comparisons.interval": "95% interval, unadjusted; the dashed line is zero",
    "comparisons.p": "p",
    "comparisons.p-adjusted": "p, adjusted",
    "comparisons.items": "Items to tell",
    "comparisons.reason": "Compared for",
    "comparisons.summary": "{comparisons}, {ties}",
    "comparisons.summary-lower": "{comparisons}, {ties}, lower is better",
    "comparisons.no-number": "no number",
    "reason.base": "its base",
    "reason.best": "the best run",
    "reason.best-group": "the best group of seeds",
    "reason.few-shot": "its base with examples in the prompt",
    # axes
    "axes.title": "What each setting does",
    "axes.note": "{metric} with its 95% interval, unadjusted, against the setting; along a line all other settings"
    " are the same. A ring marks a value that is better, beyond chance, than every other value of its line. Without"
    " a ring these items cannot tell which value is best.",
    "axes.seeds": "With several seeds each has a point of its own and the line joins their means; comparisons are"
    " of all seeds together.",
    "axes.validation": "Validation loss",
    "axes.no-validation": "There was no validation, so no validation loss stands beside it.",
    "axes.line": "{line}: {said}",
    "axes.one": "{best} is ahead, better beyond chance than every other value.",
    "axes.some": "{best} is ahead, better beyond chance than {worse}; it cannot be told from {ties}.",
    "axes.none": "{best} is ahead, but cannot be told from {ties}: no best value beyond chance.",
    "axes.no-line": "On none of these {n} lines can the value that is ahead be told from any other.",
    "axes.not-compared": "{best} is ahead; the values of this line were not compared.",
    "axes.region": "{metric} by {axis}",
    # two settings
    "grid.title": "Two settings at once",
    "grid.note": "{metric}; the stronger the colour, the better. In brackets the 95% interval, unadjusted, or,"
    " where several seeds were trained, how many the mean is of.",
    "grid.best": "The framed value is better, beyond chance, than every other.",
    "grid.no-best": "No value is framed: the best cannot be told from some other.",
    "grid.region": "{metric} by {row} and {column}",
    "grid.corner": "{row} ↓ {column} →",
    "grid.none": "–",
    # seeds
    "seeds.title": "Seed noise",
    "seeds.note": "Runs that differ in their seed alone. Dots are the seeds; the bar is the 95% interval of their"
    " mean, unadjusted, over seeds and items.",
    "seeds.said": "The seed alone moves {metric} by about {deviation} (standard deviation within a setting, pooled"
    " over {groups}), so two single runs of one setting differ by about {two}. The means of the settings lie up to"
    " {apart} apart.",
    "seeds.said-one": "The seed alone moves {metric} by about {deviation} (standard deviation), so two single runs"
    " of this setting differ by about {two}.",
    "seeds.region": "{metric} over the seeds",
    "seeds.setting": "Setting",
    "seeds.mean": "Mean",
    "seeds.range": "Lowest and highest",
    "seeds.deviation": "Standard deviation",
    # cost and quality
    "quality.title": "Cost against quality",
    "quality.note": "{metric} with its 95% interval, unadjusted, against {cost}. The stepped line is the Pareto"
    " front: the runs that none reaches or beats at the same cost or less, by the figures as measured. The dashed"
    " line is the untouched base, which costs nothing.",
    "quality.note-no-base": "{metric} with its 95% interval, unadjusted, against {cost}. The stepped line is the"
    " Pareto front: the runs that none reaches or beats at the same cost or less, by the figures as measured.",
    "quality.tokens": "Training tokens",
    "quality.seconds": "Training time in seconds",
    "quality.tokens-inside": "training tokens",
    "quality.seconds-inside": "training time, which runs of one fleet share by their tokens",
    "quality.same": "All tuned runs cost about the same, so cost does not decide between them.",
    "quality.region": "Runs on the Pareto front",
    "quality.cost": "Cost",
    "quality.step": "Against the one before",
    "quality.interval": "95% interval",
    "quality.not-compared": "not compared",
    "quality.front": "On the Pareto front, from cheap to dear:",
    # curves
    "curves.title": "Loss curves",
    "curves.train": "Training loss, smoothed",
    "curves.validation": "Validation loss",
    "curves.note": "Runs that share their beginning share that part of the curve.",
    "curves.marked": "A ring marks where a run began to overfit.",
    "curves.epoch": "epoch",
    "curves.nats": "nats per target token",
    # overfitting
    "overfitting.title": "Overfitting",
    "overfitting.note": "From the validation rows, which training never sees. A rise counts where the same rows"
    " show it beyond chance.",
    "overfitting.verdict.overfitting": "overfitting",
    "overfitting.verdict.not overfitting": "not overfitting",
    "overfitting.verdict.still improving": "still improving",
    "overfitting.verdict.not assessed": "not assessed",
    "overfitting.since": "{verdict} from epoch {epoch}",
    "overfitting.plain": "{verdict}.",
    "overfitting.unknown": "{verdict}: {reason}.",
    "overfitting.lowest": "Validation loss was lowest at epoch {lowest} ({value})",
    "overfitting.rise": "Validation loss was lowest at epoch {lowest} ({value}) and {rise} higher at epoch {last}"
    " (95% interval {interval}; p {p}, the choice of the lowest allowed for)",
    "overfitting.overfitting": "{verdict}. {rise}, while training loss fell by {fall}. Stop at epoch {lowest}.",
    "overfitting.improving": "{verdict}. Validation loss fell by {fall} from epoch {since} to {last} (95% interval"
    " {interval}). Longer training may help.",
    "overfitting.reason": "{verdict}. {rise}, and {reason}.",
    "overfitting.chance": "{verdict}. {rise}, which chance could explain.",
    "overfitting.last": "{verdict}. {rise}, the last, but hardly lower than before.",
    "overfitting.why.no-validation": "there was no validation",
    "overfitting.why.once": "validation loss was measured once only",
    "overfitting.why.few-rows": "{rows} validation rows are too few, at least {fewest} needed",
    "overfitting.why.diverged": "training loss rose too: that is divergence; try a lower learning rate",
    "overfitting.weights-early": "It stopped early; adapter and metrics are those of step {step} of {steps}.",
    "overfitting.weights-end": "It went to its end; adapter and metrics are those of step {step} of {steps}.",
    # confusion matrices
    "confusion.title": "Confusion matrices",
    "confusion.note": "Rows are the reference labels, columns what the run said; shading is the share of the row."
    " Answers that could not be parsed are counted in a column of their own and as wrong.",
    "confusion.likelihood": "By label likelihood",
    "confusion.generated": "From generated answers",
    "confusion.accuracy": "accuracy {value}",
    "confusion.region": "Confusion matrix of {run}, {kind}",
    "confusion.figures": "Figures per class of {run}, {kind}",
    "confusion.class": "Class",
    "confusion.precision": "Precision",
    "confusion.recall": "Recall",
    "confusion.f1": "F1",
    "confusion.items": "Items",
    "confusion.macro": "macro average",
    "confusion.weighted": "weighted average",
    "unparsable": "unparsable",
    # answers side by side
    "answers.title": "Answers side by side",
    "answers.note": "Greedy answers to the first {n} test items, as they came. “Cut” means that the answer reached"
    " its longest length without ending.",
    "answers.figures": "ROUGE-L {rouge}, chrF {chrf}",
    "answers.cut": "cut",
    "answers.empty": "empty",
    "answers.more": "What {models} wrote is in items/answers.jsonl of their folders.",
    "item": "Item",
    "reference": "Reference",
    # what changed
    "classes.title": "Which classes gained and lost",
    "classes.note": "From the untouched base to the run, item by item: how many items of each class became right,"
    " and how many became wrong. Counts only; classes are not tested one by one.",
    "classes.region": "Gains and losses per class of {run}",
    "classes.before": "Right in the base",
    "classes.lost": "Lost",
    "classes.gained": "Gained",
    "classes.after": "Right in the run",
    "classes.net": "Net",
    "classes.all": "all classes",
    "classes.summary": "{gained} gained, {lost} lost",
    "flips.title": "What changed, item by item",
    "flips.note": "Items on which <b>{base}</b> and <b>{run}</b> differ, {kind}.",
    "flips.likelihood": "by label likelihood",
    "flips.generated": "by the generated answer",
    "flips.fixed": "Fixed",
    "flips.fixed-meaning": "wrong in the base, right in the run",
    "flips.broken": "Broken",
    "flips.broken-meaning": "right in the base, wrong in the run",
    "flips.first": "{meaning}; the first {n}",
    "flips.region": "{title} items",
    "flips.wrote": "wrote <q>{text}</q>",
    "flips.item": "item {id}",
    "flips.none": "None.",
    # settings, cost, facts
    "settings.title": "Settings that vary",
    "cost.title": "Cost",
    "cost.total": "The whole study took {time}.",
    "cost.region": "Cost of the runs",
    "cost.parameters": "Trainable parameters",
    "cost.steps": "Steps",
    "cost.tokens": "Tokens",
    "cost.time": "Time",
    "cost.speed": "Tokens/s",
    "cost.memory": "Peak memory",
    "cost.shared": "shares training with {runs}",
    "data.title": "Data",
    "environment.title": "Environment",
    # several studies
    "reason.again": "the same recipe, run again",
    "across.title": "{n} studies compared",
    "across.eyebrow": "pronk compare",
    "across.note": "By {metric}, all on the same {items}. “Against its base” is judged after Holm’s adjustment.",
    "across.comparisons": "Differences are the second run minus the first, item by item. Intervals are 95% and"
    " <b>unadjusted</b>: each stands for itself. Verdicts go by the adjusted p, which allows for all {family}"
    " comparisons on this page.",
    "across.study": "Study",
    "across.date": "Date",
    "across.folder": "Folder",
    "across.device": "Device",
    "across.studies": "Studies",
    "across.all": "{n} studies",
    "across.differences": "What differs between the studies",
    "across.differences-note": "Recipe keys, rows of data and versions. A difference between runs of two studies"
    " can come from any of them.",
    "across.same": "They do not differ in recipe, data or environment.",
    "across.key": "Setting",
    "across.base": "<b>{row}</b> is one row, with the figures of {study}; its {metric} was not the same everywhere:"
    " {figures}.",
    "across.figure": "{value} in {study}",
    # how this was judged
    "method.title": "How this was judged",
    "method.items": "<b>Same items.</b> Every comparison pairs two runs’ results on the same test items;"
    " differences are the second run minus the first.",
    "method.accuracy": "<b>Accuracy.</b> McNemar’s exact test; interval by Tango’s score method (1998). The"
    " interval of a single accuracy is Wilson’s (1927).",
    "method.resampling": "<b>Macro-F1, loss, ROUGE-L and chrF.</b> A permutation test that swaps the two runs’"
    " results within items, at least 20,000 times, with the +1 correction (Phipson &amp; Smyth 2010); interval by"
    " the paired bootstrap over items, percentiles of 5,000, widened where few items decide (Hesterberg 2015).",
    "method.similarity": "<b>ROUGE-L and chrF.</b> Both from 0 to 1, the mean over the items, greedy answers"
    " against one reference each. ROUGE-L (Lin 2004): F1 of the longest common subsequence of words; words are runs"
    " of letters and digits in lower case, so a Korean word is an eojeol with its particles, and in scripts without"
    " spaces each character is one. chrF (Popović 2015): F2 of character n-grams up to six. Both measure overlap"
    " with the reference’s wording, not truth.",
    "method.many": "<b>Many comparisons.</b> p-values are adjusted by Holm’s method over all {family} comparisons"
    " of this study, every metric together. “Better” and “worse” mean an adjusted p below 0.05; a tie means that"
    " chance could explain the difference, not that the runs are equal. Intervals are not adjusted.",
    "method.one": "<b>One comparison.</b> Its p-value needs no adjustment. “Better” and “worse” mean a p below 0.05; a"
    " tie means that chance could explain the difference, not that the runs are equal.",
    "method.needed": "<b>Items to tell.</b> For a tie: about how many test items would make a difference of this"
    " size, with items as much at odds as these, significant after Holm’s adjustment with 80% power (Connor 1987"
    " for right and wrong; else the normal approximation). The difference seen is itself uncertain, so this is an"
    " order of magnitude. “No number”: the difference is zero, or it would take more than a million.",
    "method.overfitting": "<b>Overfitting.</b> The last validation against the lowest, row by row: signs of rows"
    " are flipped in all evaluations alike, and the largest standardised rise over any earlier evaluation is taken"
    " each time (Westfall &amp; Young 1993), which allows for the choice of the lowest. The interval is that of the"
    " paired bootstrap and does not.",
    "method.selection": "<b>Selection.</b> The best run was chosen by these same test items, so its own figures,"
    " and its leads, look a little better than new data would show. The more runs, the larger this bias.",
    "method.seeds": "<b>Seeds.</b> A comparison of two runs allows for chance in the choice of test items, not in"
    " training: another seed gives another run. Where runs differ in their seed alone, “(3 seeds)” stands for all"
    " of them, and comparisons of such groups allow for both kinds of chance: crossed random effects of seeds and"
    " items, Student’s t with degrees of freedom that hold from two seeds on (94.6 to 96.6% covered with 2, 94.5 to"
    " 95.7% with 3 or more). With few seeds their intervals are wide, as they must be.",
    "method.loss": "<b>Loss and perplexity.</b> Per target token of the reference answers. They do not compare"
    " across tokenizers, so runs on different bases are not compared by them.",
}
