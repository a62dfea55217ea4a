"""pronk against other tools on the same work.

bench_work.py   from a recipe, or shapes alone (shapes.py), to the work
sides.py        who does it, each in a process of its own (peers/)
agreement.py    whether they did the same: else there is no ratio
measured.py     tokens a second, tables; gemm.py: the ceiling of matrix products
bench_fleet.py  a fleet against its runs one by one
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from pronk.doctor.agreement import COARSE, TOLERANCE, Tolerance, disagreement, largest_difference
from pronk.doctor.bench_work import Request, named_works
from pronk.doctor.measured import (
    described,
    divided,
    flop_per_token,
    gibibytes,
    plain,
    speed,
    table,
    tokens_per_step,
    versions,
)
from pronk.doctor.peers.work import Answer, Result, Work
from pronk.doctor.sides import PEERS, choose_peers, run_side
from pronk.errors import OptionError, RefusedError


@dataclass(frozen=True)
class Measured:
    """What came of a bench: results by side, and of the sides without a ratio, why.

    works: what each side did; peers train the work of "ours".
    """

    works: Mapping[str, Work]
    results: Mapping[str, Result]
    problems: Mapping[str, str]

    def speeds(self) -> dict[str, float]:
        """Tokens a second of the sides that did the same."""
        return {name: speed(result, self.works[name]) for name, result in self.results.items() if self.fair(name)}

    def fair(self, name: str) -> bool:
        """Whether a side did what ours did."""
        return name not in self.problems


def bench_training(request: Request, console: Console) -> dict[str, Any]:
    """One run's step against every peer's: "json", "markdown", and "problems", why some side has no ratio.

    Raises RefusedError if our own side failed, InputError where the sides could not do the same.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        works = {
            name: replace(work, token_budget=request.token_budget)
            for name, work in named_works(request, folder).items()
        }
        peers = choose_peers(request.peers, works["ours"].device, works["ours"].quantize)
        check_settings(works["ours"], peers)
        works["ours"] = replace(works["ours"], ceiling=True)
        works |= peer_works(peers, works["ours"], request.layout)
        answers = play(works, folder, console, request.timeout)
        measured, share = judged(works, answers), share_read(works["ours"])
        return {
            "json": _training_json(measured, peers, request, share),
            "markdown": _training_table(measured, peers, share),
            "problems": told(measured),
        }


def title(name: str) -> str:
    """A side as tables call it."""
    if name in PEERS:
        return PEERS[name].title
    return {"ours": "pronk", "fleet": "pronk's fleet"}.get(name, f"pronk, {name}")


def told(measured: Measured) -> list[str]:
    """Why some sides have no ratio, a text for each."""
    return [f"{title(name)}: no ratio is given: {why}" for name, why in measured.problems.items()]


def play(works: Mapping[str, Work], folder: Path, console: Console, timeout: int) -> dict[str, Answer]:
    """The sides' answers, in a process each: what one leaves behind in a GPU's memory is none of the next one's.

    Raises RefusedError if our own side failed: nobody is measured against it.
    """
    answers: dict[str, Answer] = {}
    for name, work in works.items():
        answers[name] = run_side(name if name in PEERS else "ours", work, folder, console, timeout)
        if name == "ours" and isinstance(failed := answers[name], str):
            raise RefusedError(f"bench: pronk's own side failed:\n{failed}")
    return answers


def peer_works(peers: Sequence[str], ours: Work, layout: str) -> dict[str, Work]:
    """The peers' works: the same as ours, in their own layout."""
    chosen: Literal["padded", "packed"] = "packed" if layout == "packed" else "padded"
    return {peer: replace(ours, layout=chosen, liger=peer == "trl+liger") for peer in peers}


def check_settings(work: Work, peers: Sequence[str]) -> None:
    """Raise OptionError where peers could not train as ours does."""
    if peers and work.recompute not in (0, "none", "all"):
        raise OptionError(
            f"train.recompute: {work.recompute} layers, but other tools recompute all or none; write one of these, or "
            "--peers none"
        )
    if "unsloth" in peers and work.quantize == "nf4" and not work.double_quantization:
        raise OptionError("double_quantization: false, but Unsloth always quantizes the scales too; leave one out")


def judged(works: Mapping[str, Work], answers: Mapping[str, Answer], unlike: set[str] | None = None) -> Measured:
    """Results, and problems of those that failed or did not do what ours did. unlike: sides with work of their own,
    whose gradients must still be some."""
    results = {name: answer for name, answer in answers.items() if isinstance(answer, Result)}
    problems = {name: f"it failed:\n{answer}" for name, answer in answers.items() if isinstance(answer, str)}
    ours = results["ours"]
    for name, result in results.items():
        other = result if name in (unlike or set()) else ours
        if why := disagreement(result, other, _tolerance(name, works)):
            problems[name] = why
    return Measured(works, results, problems)


def _tolerance(name: str, works: Mapping[str, Work]) -> Tolerance:
    return TOLERANCE[works["ours"].dtype] if name in (*PEERS, "ours", "fleet") else COARSE


def _training_json(measured: Measured, peers: Sequence[str], request: Request, share: float) -> dict[str, Any]:
    """share: of the tokens that our step reads."""
    speeds = measured.speeds()
    ours = {name: value for name, value in speeds.items() if name not in peers}
    theirs = {name: value for name, value in speeds.items() if name in peers}
    memory = {name: float(measured.results[name].peak_memory_bytes) for name in speeds}
    work = measured.works["ours"]
    return {
        # against the fastest of the others
        "ratio": ours["ours"] / max(theirs.values()) if "ours" in ours and theirs else None,
        "ratios": divided(ours, theirs),
        "memory_ratios": divided({name: memory[name] for name in ours}, {name: memory[name] for name in theirs}),
        "tokens_per_second": speeds,
        "tokens_per_step": tokens_per_step(work),
        "share_of_tokens_read": share,
        "matrix_products_flop_per_second": measured.results["ours"].matrix_products,
        "matrix_product_utilisation": _utilisations(measured),
        "differences": differences(measured),
        "problems": dict(measured.problems),
        "work": plain(work),
        "layout": request.layout,
        "variants": list(request.variants),
        "sides": {name: asdict(result) for name, result in measured.results.items()},
        "versions": versions(),
        "command": command_line(),
    }


def differences(measured: Measured) -> dict[str, dict[str, float]]:
    """How far each side's figures lie from ours, where there are as many."""
    ours = measured.results["ours"]
    return {
        name: {
            "loss": largest_difference(result.losses, ours.losses),
            "gradient_norm": largest_difference(result.gradient_norms, ours.gradient_norms),
        }
        for name, result in measured.results.items()
        if name != "ours"
        and measured.works[name].batch_size == measured.works["ours"].batch_size
        and len(result.losses) == len(ours.losses)
    }


def _utilisations(measured: Measured) -> dict[str, float]:
    """FLOP that the tokens need over what matrix products reached here; of sides that compute in the same type."""
    rate, work = measured.results["ours"].matrix_products, measured.works["ours"]
    if not rate or work.recompute not in (0, "none"):
        return {}
    cost = flop_per_token(work)
    return {name: value * cost / rate for name, value in measured.speeds().items() if name in (*PEERS, "ours")}


def _training_table(measured: Measured, peers: Sequence[str], share: float) -> str:
    """A row for each side; a column of ratios for each of ours."""
    speeds, used = measured.speeds(), _utilisations(measured)
    own = [name for name in measured.works if name not in peers]
    rows = []
    for name in measured.works:
        result = measured.results.get(name)
        if result is None or name not in speeds:
            version = f" {result.version}" if result else ""
            rows.append([title(name) + version, *["–"] * len(own), "no ratio, see below", "–", "–", "–", "–"])
            continue
        ratios = [f"{speeds[one] / speeds[name]:.2f}" if one in speeds else "–" for one in own]
        rows.append(
            [
                f"{title(name)} {result.version}", *ratios, f"{speeds[name]:,.0f}",
                f"{result.losses[0]:.4f} → {result.losses[-1]:.4f}",
                gibibytes(result.peak_memory_bytes), gibibytes(result.peak_allocated_bytes),
                f"{used[name]:.0%}" if name in used else "–",
            ]
        )  # fmt: skip
    head = ["", *(f"{title(one)} ÷" for one in own), "real tokens/s", "loss, first → last step"]
    head += ["peak reserved", "peak allocated", "of matrix products"]
    work, ours = measured.works["ours"], measured.results["ours"]
    lines = [described(work, ours.device_name), "", *table(head, rows)]
    if len(own) == len(measured.works):
        lines += ["", "No other tool was measured; `pip install trl` brings one, `unsloth` another."]
    if ours.matrix_products and used:
        lines += ["", f"Matrix products of the layers' shapes reach {ours.matrix_products / 1e12:,.1f} TFLOP/s here."]
    if (shared := 1 - share) >= 0.005:
        lines += ["", f"{shared:.0%} of pronk's tokens lie in beginnings that examples share, which it reads once."]
    return "\n".join([*lines, "", f"`{command_line()}`"])


def command_line() -> str:
    """The command that was given, as it could be given again."""
    program = Path(sys.argv[0]).name
    return shlex.join(["pronk" if program in ("__main__.py", "pronk") else program, *sys.argv[1:]])


def share_read(work: Work) -> float:
    """Which share of the tokens pronk's step reads, beginnings that are the same counted once."""
    import numpy as np

    from pronk.tokens.pack import TOKEN_BUDGET, Member, pack
    from pronk.tokens.prompt import Example

    members = [Member(Example(np.array(ids), np.array(learned, dtype=bool))) for ids, learned in work.examples]
    batches = [members[start : start + work.batch_size] for start in range(0, len(members), work.batch_size)]
    read = sum(
        len(packed.ids_T) for batch in batches for packed in pack(batch, work.token_budget or TOKEN_BUDGET[work.device])
    )
    return read / sum(len(member.example.ids) - 1 for member in members)
