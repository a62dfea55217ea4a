"""Every fixed text of a blind test's result, in English and Korean; tests hold both to the same keys and blanks."""

from __future__ import annotations

ENGLISH = {
    "better": "{better} is better than {worse}: {figures}.",
    "figures": "it won {rate} of the comparisons (95% interval {interval}), a tie being half a win",
    "between": "{low} to {high}",
    "even": "The votes do not tell {a} and {b} apart: each won half of the comparisons.",
    "tie": (
        "The votes do not settle which of the two is better. {better} is ahead of {worse}: {figures}; but that could "
        "be chance. This does not mean that they are equal: more questions may tell.{beforehand}"
    ),
    "beforehand": (
        " (The interval leaves 50% out, but holds for a number of votes fixed beforehand, not for stopping at will.)"
    ),
    "none": "None of the {pairs} pairs is settled: what lies between them could be chance.",
    "settled": "Settled are {sure} of {pairs} pairs: {said}. The others could be chance.",
    "over": "{better} over {worse}",
    "ahead": "Ahead is {name}: against the average of the others it would win {rate} (95% interval {interval}).",
    "voted": "Votes: {votes}, by {names}, on {seen} of {questions} questions ({source}).",
    "identical": "Pairs of answers that were identical: {count}. They count as ties, and were not shown.",
    "agreed": (
        "{one} and {other} said the same of {share} of the {units} pairs of answers that both judged (Cohen’s κ "
        "{kappa})."
    ),
    "kappa": "{kappa}, 95% interval {low} to {high}",
    "undefined": "undefined",
    "alpha": "All judges together: Krippendorff’s α {alpha}.",
    "first": (
        "The answer that stood first (left, or above) won {share} of the {votes} votes for one side, which is more "
        "than chance: places may have been voted for. Sides were drawn anew each time, so that blurs the result but "
        "favours nobody."
    ),
    "second": (
        "The answer that stood second (right, or below) won {share} of the {votes} votes for one side, which is more "
        "than chance: places may have been voted for. Sides were drawn anew each time, so that blurs the result but "
        "favours nobody."
    ),
    "the-test-items": "the study's test items",
    "left_out": "Votes on other answers, in the file and left out: {count}.",
    "and": "and",
    # of the report's section
    "title": "Blind test",
    "note": (
        "People saw two answers without knowing whose, sides shuffled. A tie, and two bad answers, count half for "
        "each. Intervals are 95%, over questions: votes of several people on one question count as belonging "
        "together. “Better” and “worse” hold at whatever vote one stops (at most 5% false alarms over all pairs); a "
        "tie means that the votes do not tell."
    ),
    "column.runs": "Runs",
    "column.verdict": "Verdict on the second",
    "column.won": "Won",
    "column.lost": "Lost",
    "column.ties": "Ties",
    "column.bad": "Both bad",
    "column.rate": "Win rate",
    "column.interval": "95% interval",
    "column.any_time": "Whenever one stops",
    "column.run": "Run",
    "column.others": "Would win against the average of the others",
    "column.place": "Place",
    "label.pairs": "Blind test, pair by pair",
    "label.ranking": "Blind test, ranking",
    "ranking": "Bradley & Terry (1952); intervals and places by the bootstrap over questions.",
    "verdict.better": "▲ better",
    "verdict.worse": "▼ worse",
    "verdict.tie": "= tie",
}

KOREAN = {
    "better": "{better} 쪽이 {worse} 쪽보다 낫습니다: {figures}.",
    "figures": "비교의 {rate}에서 이겼습니다(95% 구간 {interval}, 무승부는 반 승)",
    "between": "{low}~{high}",
    "even": "투표로는 {a} 쪽과 {b} 쪽을 가릴 수 없습니다: 둘 다 비교의 절반에서 이겼습니다.",
    "tie": (
        "투표로는 어느 쪽이 나은지 결론이 나지 않습니다. {better} 쪽이 {worse} 쪽보다 앞서지만({figures}), 우연일 수 "
        "있습니다. 둘이 같다는 뜻은 아니며, 질문이 더 많으면 알 수도 있습니다.{beforehand}"
    ),
    "beforehand": (
        " (구간에 50%가 들어 있지 않지만, 그 구간은 투표 수를 미리 정했을 때의 것이고 아무 때나 멈춰도 되는 것은 "
        "아닙니다.)"
    ),
    "none": "{pairs}개 쌍 가운데 결론이 난 것은 없습니다: 차이가 우연일 수 있습니다.",
    "settled": "{pairs}개 쌍 가운데 {sure}개는 결론이 났습니다: {said}. 나머지는 우연일 수 있습니다.",
    "over": "{better} > {worse}",
    "ahead": "가장 앞선 것은 {name}: 나머지의 평균을 상대로 {rate} 이길 것으로 보입니다(95% 구간 {interval}).",
    "voted": "투표 {votes}건, 투표한 사람: {names}, 질문 {questions}개 중 {seen}개({source}).",
    "identical": "답이 똑같은 쌍: {count}개. 보여 주지 않고 무승부로 셌습니다.",
    "agreed": "{one}, {other}: 둘 다 판단한 답 {units}쌍 가운데 {share}에서 같은 판단을 했습니다(Cohen의 κ {kappa}).",
    "kappa": "{kappa}, 95% 구간 {low}~{high}",
    "undefined": "정의되지 않음",
    "alpha": "모두 함께: Krippendorff의 α {alpha}.",
    "first": (
        "먼저(왼쪽이나 위) 놓인 답이 한쪽을 고른 {votes}표 가운데 {share}를 얻었습니다. 우연보다 많으니 자리를 보고 "
        "골랐을 수 있습니다. 자리는 매번 새로 뽑았으므로 결과가 흐려질 뿐 누구에게도 유리하지 않습니다."
    ),
    "second": (
        "나중(오른쪽이나 아래)에 놓인 답이 한쪽을 고른 {votes}표 가운데 {share}를 얻었습니다. 우연보다 많으니 자리를 "
        "보고 골랐을 수 있습니다. 자리는 매번 새로 뽑았으므로 결과가 흐려질 뿐 누구에게도 유리하지 않습니다."
    ),
    "the-test-items": "실험의 테스트 항목",
    "left_out": "다른 답에 대한 투표라서 세지 않은 것: {count}건.",
    "and": ",",
    # of the report's section
    "title": "이름을 가린 투표",
    "note": (
        "누구의 답인지 모르는 채, 자리를 섞은 두 답을 보고 투표했습니다. 무승부와 둘 다 나쁜 답은 양쪽에 절반씩 "
        "셉니다. 구간은 질문을 단위로 한 95% 구간이며, 한 질문에 대한 여러 사람의 투표는 한 덩어리로 다룹니다. “더 "
        "나음”과 “더 나쁨”은 언제 투표를 멈추든 유효하고(모든 쌍을 통틀어 잘못 말할 확률은 최대 5%), 무승부는 "
        "투표로는 알 수 없다는 뜻입니다."
    ),
    "column.runs": "실행",
    "column.verdict": "두 번째에 대한 판정",
    "column.won": "승",
    "column.lost": "패",
    "column.ties": "무승부",
    "column.bad": "둘 다 나쁨",
    "column.rate": "승률",
    "column.interval": "95% 구간",
    "column.any_time": "언제 멈추든",
    "column.run": "실행",
    "column.others": "나머지의 평균을 상대로 한 승률",
    "column.place": "순위",
    "label.pairs": "이름을 가린 투표, 쌍별",
    "label.ranking": "이름을 가린 투표, 순위",
    "ranking": "Bradley & Terry (1952). 구간과 순위는 질문을 단위로 한 부트스트랩.",
    "verdict.better": "▲ 더 나음",
    "verdict.worse": "▼ 더 나쁨",
    "verdict.tie": "= 무승부",
}

TEXTS = {"en": ENGLISH, "ko": KOREAN}
