"""`pronk check --baseline`: what the untouched base can do on the validation rows, before anything is trained.

The plain prompt and prompts with examples, all in the same batches; a model behind an OpenAI-compatible interface
beside them where one is named. The test rows are not looked at.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.compare.baseline import intervals
from pronk.compare.items import read_item_files
from pronk.compare.pairs import compare_runs
from pronk.compare.summary import run_metrics
from pronk.data.conversation import Conversation
from pronk.data.detect import with_found_formats
from pronk.data.shots import choose_shots
from pronk.data.split import Splits, read_splits
from pronk.doctor.ready import Ready, prepare
from pronk.errors import OptionError, OutOfMemoryError, RecipeError
from pronk.recipe import SHOTS, Recipe
from pronk.runs import RunFolder, disk_guard, write_text
from pronk.study import plan_study
from pronk.train.progress import say, work

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.evaluate.evaluation import Evaluated
    from pronk.evaluate.served import Server

Row = dict[str, Any]


def check_baseline(recipe: Recipe, url: str | None, model: str | None, path: Path, console: Console) -> dict[str, Any]:
    """What `pronk check --baseline` found, written to a file as well; see `measure_baseline`.

    url, model: of a server to measure beside. Raises OptionError for one without the other.
    """
    from pronk.evaluate.served import server_of

    if (url is None) != (model is None):
        raise OptionError("--against URL and --against-model NAME belong together; give both")
    with disk_guard(path):
        record = measure_baseline(recipe, server_of(url, model) if url and model else None, console)
        write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record


def measure_baseline(recipe: Recipe, server: Server | None, console: Console) -> dict[str, Any]:
    """What every base of a recipe comes to on its validation rows, by the number of examples in the prompt.

    recipe: its `baseline.shots` says how many; usual numbers where it says nothing. Returns what baseline.json holds:
    `rows` as the runs of study.json, with `intervals`; `comparisons` with the plain prompt; `examples`, the rows that
    are shown; `left_out`, why some numbers are missing.
    """
    tell = partial(say, console)
    recipe = with_found_formats(recipe, tell)
    splits, labels = read_splits(recipe.data, tell)
    if not splits.validation:
        raise RecipeError(
            "data.split.validation: takes no rows, and --baseline measures on them, so that the test stays unseen; "
            "write validation: 0.1"
        )
    counts = shot_counts(recipe, splits)
    shots = choose_shots(splits, max(counts), labels, recipe.baseline.seed)
    splits = replace(splits, test=splits.validation)
    with console.status("reading the base and the data"):
        ready = [one for one in prepare(plan_study(recipe), splits, labels, tell) if one.fleet.measures_base]
    rows: list[Row] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pronk-") as folder:
        place = Place(Path(folder), [str(number) for number in range(len(splits.test))])
        if server is not None:  # first: a wrong key shows before a model is loaded
            rows.append(place.served(server, recipe, ready[0], console))
        for one in ready:
            rows += place.measured(one, recipe, shots, counts, console, left_out.append)
        rows = [*(row for row in rows if "served" not in row), *(row for row in rows if "served" in row)]
        comparisons = compare_runs(rows, place.items)
    told = [{"place": row.place, "input": row.subject, "answer": row.answer} for row in shots]
    return {
        "part": "validation", "items": len(splits.test), "seed": recipe.baseline.seed, "examples": told,
        "rows": rows, "comparisons": comparisons, "left_out": left_out,
    }  # fmt: skip


def shot_counts(recipe: Recipe, splits: Splits) -> list[int]:
    """Numbers of examples to measure with, rising; 0, with which the others are compared, is always among them."""
    if recipe.baseline.shots:
        return sorted({0, *recipe.baseline.shots})
    asks = bool(splits.train) and bool(splits.train[0].question)
    return [count for count in SHOTS if not count or (asks and count <= len(splits.train))]


def measure_few_shot(
    ready: Ready, model: Any, recipe: Recipe, shots: Sequence[Conversation], counts: Sequence[int], console: Console,
    check: Callable[[], None] = lambda: None, tell: Callable[[str], None] | None = None,
) -> dict[int, Evaluated]:  # fmt: skip
    """The untouched base on the test rows of its examples, by the number of examples in its prompt.

    counts: those whose prompts the base cannot read are left out, and told. check: called between batches.
    """
    from pronk.evaluate.few_shot import fitting, measure_shots, tokens_of

    prompts = fitting(ready.examples, shots, counts, recipe.evaluations, tell or partial(say, console))
    with work(console, "examples in the prompt", tokens_of(prompts, recipe.evaluations)) as bar:

        def advance(tokens: int) -> None:
            bar.advance(tokens)
            check()

        return measure_shots(model, ready.examples, prompts, recipe, advance, ready.evaluation_tokens)


@dataclass(frozen=True)
class FewShotRows:
    """Rows of a study by name. facts: what study.json and the report say of them among the data."""

    results: list[tuple[str, Evaluated]]
    facts: dict[str, str]


def few_shot_rows(
    ready: Ready, model: Any, recipe: Recipe, shots: Sequence[Conversation], console: Console, check: Callable[[], None]
) -> FewShotRows:
    """The untouched base with examples in its prompt, as rows of a study.

    Too little memory for the longer prompts is told, and costs these rows alone.
    """
    counts, left_out = [count for count in recipe.baseline.shots if count], []

    def tell(line: str, style: str | None = None) -> None:
        left_out.append(line)
        say(console, line, style)

    found: dict[int, Evaluated] = {}
    try:
        found = measure_few_shot(ready, model, recipe, shots, counts, console, check, tell)
    except OutOfMemoryError as error:
        tell(f"examples in the prompt are not measured: {error}", "red")
    facts = {"examples_in_the_prompt": "; ".join(row.place for row in shots)}
    facts |= {"examples_left_out": "; ".join(left_out)} if left_out else {}
    return FewShotRows([(ready.fleet.few_shot(count), one) for count, one in found.items()], facts)


class Place:
    """Where item results lie while they are compared. items: of each row, by its name."""

    def __init__(self, folder: Path, ids: list[str]) -> None:
        self.folder, self.ids = folder, ids
        self.items: dict[str, Any] = {}

    def measured(
        self, ready: Ready, recipe: Recipe, shots: Sequence[Conversation], counts: Sequence[int], console: Console,
        leave_out: Callable[[str], None],
    ) -> list[Row]:  # fmt: skip
        """The rows of one base."""
        from pronk.model.determinism import deterministic
        from pronk.model.load import load_for_fleet, resolve_dtype
        from pronk.model.memory.guard import memory_guard

        fleet, dtype = ready.fleet, resolve_dtype(recipe.train.dtype, ready.device)
        with deterministic(recipe.train.deterministic):
            with console.status(f"loading {fleet.base}"), memory_guard(f"loading {fleet.base}"):
                model = load_for_fleet(fleet, ready.base, dtype, ready.device)
            found = measure_few_shot(ready, model, recipe, shots, counts, console, tell=leave_out)
        rows = []
        for count, results in found.items():
            name = fleet.few_shot(count) if count else fleet.baseline
            number = len(self.items)
            results.write_items(RunFolder(self.folder / str(number)), self.ids)
            row = {"name": name, "base": fleet.base, "quantize": fleet.quantize, **({"shots": count} if count else {})}
            rows.append(self._row(row, number))
        return rows

    def served(self, server: Server, recipe: Recipe, ready: Ready, console: Console) -> Row:
        """The row of a model behind an interface; it is compared with the first base."""
        from pronk.evaluate.served import ask_served
        from pronk.evaluate.served_items import longest_answer, served_records

        rows, wanted = ready.examples.splits.test, recipe.evaluations
        longest = longest_answer(ready.examples, wanted, recipe.max_new_tokens)
        with work(console, f"asking {server.model}", len(rows)) as bar:
            answers = ask_served(server, [row.question for row in rows], longest, bar.advance)
        number = len(self.items)
        for evaluation, records in served_records(
            answers, rows, ready.examples.labels, wanted, self.ids, recipe.exact
        ).items():
            RunFolder(self.folder / str(number)).write_items(evaluation, records)
        kept = {"base": ready.fleet.base, "quantize": ready.fleet.quantize}
        return self._row({"name": f"{server.model} (served)", **kept, "served": server.host}, number)

    def _row(self, row: Row, number: int) -> Row:
        items = self.items[row["name"]] = read_item_files(self.folder / str(number) / "items", row["name"])
        whole = {**row, "baseline": True, "settings": {}, "status": "finished"}
        return {**whole, "metrics": run_metrics(items), "intervals": intervals(items)}
