"""ROUGE-L and chrF against rouge-score and sacrebleu, in English and Korean."""

import json
import os
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

from pronk.evaluate import overlap
from pronk.evaluate.overlap import chrf, longest_common_subsequence, rouge_l, words

REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[3] / "shared")) / "data"
ENGLISH = [
    "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn in the corresponding period a year ago.",
    "In the year before, the operating profit didn't rise: it was EUR 8.7 mn, it says.",
    "The company's well-known plant in Oulu will close in May; 300 jobs go.",
    "300 jobs go in Oulu. The plant, well known, closes: in May the company will close it, the company says",
    "  the   PLANT\n\nthe plant THE PLANT\t",
    "no",
]
KOREAN = [
    "삼성전자는 3분기 영업이익이 10조 8천억 원으로 지난해보다 12% 늘었다고 밝혔다.",
    "삼성전자의 3분기 영업이익은 지난해보다 12% 늘어난 10조 8천억 원이다.",
    "지카바이러스가 남성의 생식능력도 저하시킬 수 있다는 동물 실험 결과가 나왔다.",
    "동물 실험 결과, 지카바이러스가 남성의 생식능력을 저하시킬 수 있다고 한다. 결과가 나왔다!",
    "네",
]


class Eojeol:
    """Another way to the same words where a text has Hangul, ASCII and spaces alone."""

    def tokenize(self, text: str) -> list[str]:
        return re.sub(r"[^0-9a-z가-힣]", " ", text.lower()).split()


def pairs(texts: list[str]) -> list[tuple[str, str]]:
    """Every text with every other, and with random mixtures of itself."""
    generator = random.Random(0)
    made = [(a, b) for a in texts for b in texts]
    for text in texts * 5:
        parts = text.split()
        made.append((" ".join(generator.choices(parts, k=generator.randint(1, 2 * len(parts)))), text))
    return made


def real_summaries() -> list[tuple[str, str]]:
    """The beginning of each Korean article, as an answer to what its summary is."""
    path = REAL_DATA / "ko" / "sci_news_sum_50.jsonl"
    if not path.is_file():
        pytest.skip("the Korean summaries of PRONK_TEST_DATA are not here")
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["document"][:400], row["summary"]) for row in rows]


@pytest.mark.parametrize("texts", [ENGLISH, KOREAN], ids=["english", "korean"])
def test_rouge_l_is_that_of_rouge_score(texts: list[str]) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=None if texts is ENGLISH else Eojeol())
    for answer, reference in pairs(texts):
        assert rouge_l(answer, reference) == pytest.approx(scorer.score(reference, answer)["rougeL"].fmeasure)


@pytest.mark.parametrize("texts", [ENGLISH, KOREAN], ids=["english", "korean"])
def test_chrf_is_that_of_sacrebleu(texts: list[str]) -> None:
    oracle = CHRF()
    for answer, reference in pairs(texts):
        assert 100 * chrf(answer, reference) == pytest.approx(oracle.sentence_score(answer, [reference]).score)
    assert "case:mixed|eff:yes|nc:6|nw:0|space:no" in str(oracle.get_signature())


def test_both_on_real_korean_summaries() -> None:
    oracle, scorer, seen = CHRF(), RougeScorer(["rougeL"], tokenizer=Eojeol()), []
    for answer, reference in real_summaries():
        assert 100 * chrf(answer, reference) == pytest.approx(oracle.sentence_score(answer, [reference]).score)
        plain = [re.sub(r"[^\x00-\x7f가-힣]", " ", text) for text in (answer, reference)]
        seen.append(rouge_l(*plain))
        assert seen[-1] == pytest.approx(scorer.score(plain[1], plain[0])["rougeL"].fmeasure)
    assert 0.05 < sum(seen) / len(seen) < 0.95


def test_rouge_scores_own_words_leave_nothing_of_korean() -> None:
    """Why pronk has its own: the usual tokenizer keeps a–z and digits alone, so equal texts score 0."""
    text = "결과가 나왔다"
    assert RougeScorer(["rougeL"]).score(text, text)["rougeL"].fmeasure == 0
    assert rouge_l(text, text) == 1


def test_words_of_many_scripts() -> None:
    assert words("Don't STOP, e_mail 3.5%!") == ["don", "t", "stop", "e", "mail", "3", "5"]
    assert words("LLM은 '회사'가, 1조…") == ["llm은", "회사", "가", "1조"]
    assert words("大模型は3個 แมว") == ["大", "模", "型", "は", "3", "個", "แ", "ม", "ว"]
    assert words("हिन्दी की") == ["हिन्दी", "की"]  # vowel signs belong to their words
    assert words("\n …!") == []


def test_hangul_in_jamo_equals_hangul_in_syllables() -> None:
    for text in KOREAN:
        apart = unicodedata.normalize("NFD", text)
        assert apart != text
        assert rouge_l(apart, text) == chrf(apart, text) == 1


@pytest.mark.parametrize("score", [rouge_l, chrf])
def test_edges(score: Callable[[str, str], float]) -> None:
    assert score("the same", "the same") == 1
    assert [score("", "x y"), score("x y", ""), score("", ""), score(" \n", "a"), score("abc", "xyz")] == [0] * 5


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    generator = random.Random(1)
    for _ in range(200):
        a, b = ([generator.choice("abcd") for _ in range(generator.randint(0, 90))] for _ in range(2))
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, one in enumerate(a):
            for j, two in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if one == two else max(table[i][j + 1], table[i + 1][j])
        assert longest_common_subsequence(a, b) == table[-1][-1]


def only_the_same_places(a: list[str], b: list[str]) -> int:
    return sum(one == two for one, two in zip(a, b, strict=False))


def common_words(a: list[str], b: list[str]) -> int:
    return len(set(a) & set(b))


@pytest.mark.parametrize("fault", [only_the_same_places, common_words])
def test_a_subsequence_that_is_none_shows(
    fault: Callable[[list[str], list[str]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "longest_common_subsequence", fault)
    with pytest.raises(AssertionError):
        test_rouge_l_is_that_of_rouge_score(KOREAN)


@pytest.mark.parametrize(("name", "value"), [("CHRF_BETA", 1), ("CHRF_ORDER", 4)])
def test_another_chrf_shows(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, name, value)
    with pytest.raises(AssertionError):
        test_chrf_is_that_of_sacrebleu(KOREAN)
