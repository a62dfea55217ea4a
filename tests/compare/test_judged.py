"""What verdicts of a model judge come to: who wins, how sure that is, and how far the judge is to be trusted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import binomtest

import pronk.compare.judged as subject
from pronk.compare.judged import Judged, Said, length_bias, pair_results, position_bias, share
from pronk.compare.judged_shown import judged_table, notes
from pronk.compare.statistics import tango_interval


def judged(question: Any, one: Any, other: Any, a: str = "base", b: str = "run", **more: Any) -> Judged:
    return Judged(str(question), a, b, one, other, **more)


def many(counts: dict[tuple[str, str], int], **more: Any) -> list[Judged]:
    said = [pair for pair, count in counts.items() for _ in range(count)]
    return [judged(k, *pair, **more) for k, pair in enumerate(said)]


def test_a_verdict_needs_two_readings_that_agree() -> None:
    """All 25 cases: the side that both name; a tie where both are verdicts and differ; else nothing."""
    for one, other in product(get_args(Said), repeat=2):
        found = judged(1, one, other)
        if {one, other} & {"unparsable", "missing"}:
            assert (found.verdict, found.disagrees) == (None, False)
        else:
            assert found.verdict == (one if one == other else "tie")
            assert found.disagrees == (one != other)
    assert judged(1, "missing", "missing", identical=True).verdict == "tie"


def test_what_stood_first_is_favoured() -> None:
    """a_first says `a`, or b_first says `b`: then the first answer is named, perhaps beside a tie."""
    cases = list(product(["a", "b", "tie"], repeat=2))
    assert [case for case in cases if judged(1, *case).favours_first] == [("a", "b"), ("a", "tie"), ("tie", "b")]
    said = many({("a", "b"): 3, ("b", "a"): 1, ("b", "b"): 4})
    found = position_bias([*said, judged(9, "tie", "tie", identical=True)])
    assert (found["count"], found["of"], found["first"]) == (4, 8, 3)


def test_figures_of_a_pair() -> None:
    (found,) = pair_results(
        many(
            {
                ("b", "b"): 9,
                ("a", "a"): 2,
                ("tie", "tie"): 3,
                ("a", "b"): 2,
                ("unparsable", "b"): 1,
                ("b", "missing"): 4,
            }
        )
    )
    counts = {"questions": 21, "judged": 16, "wins_a": 2, "ties": 5, "wins_b": 9, "disagreed": 2}
    assert {key: found[key] for key in counts} == counts
    assert (found["unparsable"], found["missing"], found["identical"]) == (1, 4, 0)
    assert found["win_rate"] == (9 + 5 / 2) / 16
    low, high = tango_interval(2, 9, 16)
    assert found["interval"] == pytest.approx([(1 + low) / 2, (1 + high) / 2])
    assert found["p_value"] == found["p_adjusted"] == pytest.approx(binomtest(2, 11).pvalue)
    assert found["verdict"] == "tie"


def test_holm_goes_over_all_pairs_that_were_judged() -> None:
    better = many({("b", "b"): 12, ("a", "a"): 3})
    others = [one for k in range(3) for one in many({("b", "b"): 1, ("a", "a"): 1}, b=f"other-{k}")]
    nothing = many({("missing", "missing"): 2}, b="nobody")
    (alone,) = pair_results(better)
    assert (alone["verdict"], alone["p_adjusted"]) == ("better", alone["p_value"])
    first, *rest, last = pair_results([*better, *others, *nothing])
    assert first["p_adjusted"] == pytest.approx(4 * first["p_value"])
    assert [one["verdict"] for one in (first, *rest)] == ["tie"] * 4
    assert (last["win_rate"], last["p_value"], last["verdict"]) == (None, None, None)
    (worse,) = pair_results(many({("a", "a"): 20}))
    assert worse["verdict"] == "worse"


def test_several_verdicts_on_one_question_are_not_so_many_questions() -> None:
    """Ten questions, each judged in the same way five times over, are ten, not fifty."""
    once = [judged(k, *(("b", "b") if k < 8 else ("a", "a"))) for k in range(10)]
    (of_ten,), (repeated,) = pair_results(once), pair_results(once * 5)
    assert repeated["win_rate"] == of_ten["win_rate"]
    assert repeated["interval"] == pytest.approx(of_ten["interval"])
    assert repeated["p_value"] == pytest.approx(of_ten["p_value"], abs=0.01)


def test_the_longer_answer() -> None:
    won = [judged(k, "b", "b", longer="b") for k in range(6)] + [judged(k, "a", "a", longer="b") for k in range(6, 8)]
    found = length_bias(
        [*won, judged(9, "tie", "tie", longer="a"), judged(10, "a", "a"), judged(11, "a", "b", longer="a")]
    )
    assert (found["count"], found["of"], found["share"]) == (6, 8, 0.75)
    assert found["interval"][0] < 0.75 < found["interval"][1]
    assert length_bias([])["share"] is None


def test_the_interval_of_a_share_covers() -> None:
    """Cases of a question agree more than those of several; 95% ± three Monte-Carlo errors and what a score interval
    keeps in reserve."""
    random, truth, hits = np.random.default_rng(0), 0.3, 0
    for _ in range(400):
        rates = random.beta(truth * 3, (1 - truth) * 3, 60)
        cases = [(str(k), bool(random.random() < rate)) for k, rate in enumerate(rates) for _ in range(3)]
        low, high = share(cases)["interval"]
        hits += low <= truth <= high
    assert 0.95 - 3 * (0.95 * 0.05 / 400) ** 0.5 <= hits / 400 <= 0.995


def test_a_judge_of_places_alone_finds_no_winner() -> None:
    """It names the first answer four times in five, whatever stands there. False alarms: at most 5%."""
    random, alarms = np.random.default_rng(1), 0
    for _ in range(500):
        first = random.random((2, 200)) < 0.8
        said = [judged(k, "a" if first[0, k] else "b", "b" if first[1, k] else "a") for k in range(200)]
        alarms += pair_results(said)[0]["verdict"] != "tie"
    assert alarms / 500 <= 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5


def one_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Judged, "verdict", property(lambda one: subject.VALID.get(one.a_first)))


def disagreement_counts_for_the_first(patch: pytest.MonkeyPatch) -> None:
    def verdict(one: Judged) -> Any:
        both = subject.VALID.get(one.a_first), subject.VALID.get(one.b_first)
        return None if None in both else both[0]

    patch.setattr(Judged, "verdict", property(verdict))


def unparsable_is_a_tie(patch: pytest.MonkeyPatch) -> None:
    plain = Judged.verdict.fget  # type: ignore[attr-defined]
    patch.setattr(Judged, "verdict", property(lambda one: plain(one) or "tie"))


def questions_independent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(subject, "_by_question", lambda values: {str(k): [value] for k, (_, value) in enumerate(values)})


FAULTS: list[tuple[Callable[..., None], Callable[[], None]]] = [
    (one_order, test_a_verdict_needs_two_readings_that_agree),
    (one_order, test_a_judge_of_places_alone_finds_no_winner),
    (disagreement_counts_for_the_first, test_a_judge_of_places_alone_finds_no_winner),
    (unparsable_is_a_tie, test_figures_of_a_pair),
    (questions_independent, test_several_verdicts_on_one_question_are_not_so_many_questions),
    (questions_independent, test_the_interval_of_a_share_covers),
]


@pytest.mark.parametrize(("fault", "law"), FAULTS)
def test_planted_faults_are_seen(
    fault: Callable[..., None], law: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


# --- as people read it ------------------------------------------------------------------------------


def record(said: list[Judged], **more: Any) -> dict[str, Any]:
    return {
        "judge": "a/judge-with-a-long-name-of-its-own-70b-instruct", "server": "api.example.com", "source": "q.jsonl",
        "questions": 9, "pairs": pair_results(said), "position": position_bias(said), "length": length_bias(said),
        **more,
    }  # fmt: skip


def test_the_table_fits_a_terminal() -> None:
    said = many(
        {("b", "b"): 1009, ("a", "a"): 1002, ("a", "b"): 300}, a="the-base-of-all-models", b="r" * 60, longer="b"
    )
    told = {"with": "somebody with a very long name", "units": 1234, "agreed": 0.7, "cohens_kappa": -0.123,
            "interval": [-0.5, 0.25]}  # fmt: skip
    retries = {"rate limit": 12, "server error": 3, "no connection": 4, "too slow": 9}
    table = judged_table(record(said, agreement=[told], own=True, cut=5, asked={"limited": True, "retries": retries}))
    assert max(map(len, table.splitlines())) <= 80
    for expected in (
        "The order decided in 300 of 2,311",
        "Cohen's kappa −0.12",
        "12 × rate limit",
        "5 replies were cut",
    ):
        assert expected in " ".join(table.split())


def test_a_judge_that_goes_by_place_is_called_that() -> None:
    assert any("goes by place" in note for note in notes(record(many({("a", "b"): 30, ("b", "b"): 5}))))
    assert not any("goes by place" in note for note in notes(record(many({("a", "b"): 5, ("b", "b"): 30}))))


def test_a_pair_that_was_not_judged() -> None:
    table = judged_table(record(many({("missing", "b"): 3})))
    assert "not judged" in table
    assert "3 pairs not counted: not asked, or no reply." in table
