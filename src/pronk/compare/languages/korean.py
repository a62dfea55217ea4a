"""The report in Korean: the same keys and blanks as english.py.

Names and numbers are never followed by a particle whose form depends on their last sound.
"""

METRICS = {
    "accuracy": "정확도",
    "macro_f1": "매크로 F1",
    "weighted_f1": "가중 F1",
    "generated_accuracy": "생성한 답의 정확도",
    "generated_macro_f1": "생성한 답의 매크로 F1",
    "unparsable": "해석할 수 없는 답",
    "choice_accuracy": "선다형 정확도",
    "choice_accuracy_normalised": "선다형 정확도(길이로 나눔)",
    "exact_match": "정확히 맞은 답",
    "exact_unparsable": "비교할 것이 없는 답",
    "nll": "손실(토큰당 nat)",
    "perplexity": "퍼플렉시티",
    "bits_per_byte": "바이트당 비트",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "unended": "끝맺지 못한 답",
    "answer_length": "답 길이(글자)",
    "empty_answers": "빈 답",
    "forgetting_nll": "일반 글의 손실(토큰당 nat)",
    "forgetting_perplexity": "일반 글의 퍼플렉시티",
}
VERDICTS = {"better": "▲ 더 나음", "worse": "▼ 더 나쁨", "tie": "= 무승부"}
AXES = {
    "train.learning_rate": "학습률",
    "adapter.rank": "랭크",
    "adapter.alpha": "알파",
    "adapter.dropout": "드롭아웃",
    "adapter.targets": "어댑터를 붙인 층",
    "train.epochs": "에폭",
    "train.batch_size": "배치 크기",
    "train.max_steps": "스텝",
    "train.seed": "시드",
    "base": "베이스",
    "quantize": "양자화",
}
FACTS = {
    "train": "학습",
    "validation": "검증",
    "test": "테스트",
    "duplicates_removed": "지운 중복",
    "contradictory_removed": "라벨이 엇갈려 지운 행",
    "same_opening": "첫 발화가 같은 행",
    "truncated_answers": "잘린 답",
    "examples_in_the_prompt": "프롬프트에 넣은 예시",
    "examples_left_out": "넣지 못한 예시",
    "platform": "플랫폼",
    "device": "장치",
    "dtype": "자료형",
    "attention": "어텐션",
}
TEXTS = {
    "count.run": "실행 {n}개",
    "count.more-model": "다른 모델 {n}개",
    "count.item": "테스트 항목 {n}개",
    "count.example": "예시 {n}개",
    "count.comparison": "비교 {n}건",
    "count.difference": "차이 {n}건",
    "count.tie": "무승부 {n}건",
    "count.seed": "시드 {n}개",
    "count.setting": "설정 {n}개",
    "list.more": "{names} 외 {n}개",
    "interval": "{low} ~ {high}",
    "seconds": "{seconds}초",
    "minutes": "{minutes}분 {seconds}초",
    "hours": "{hours}시간 {minutes}분",
    "the-test-items": "테스트 항목",
    "base": "베이스",
    "base.shots": "손대지 않은 베이스, 프롬프트에 {examples}",
    "best": "최고",
    "row.seeds": "{name}(시드 {n}개)",
    "row.alike": "{name}(시드만 다른 실행 모두)",
    "row.asked": "{name}({study}의 방식으로 물음)",
    "row.examples": "{name}, 예시 {n}개",
    "status.failed": "실패",
    "status.interrupted": "중단",
    # the head of the page
    "title": "{name} – pronk 실험",
    "eyebrow": "pronk 실험",
    "nothing-yet": "끝까지 학습해 결과를 낸 실행이 없어 아직 비교할 것이 없습니다.",
    "answers-only": "실행이 답만 쓰고 점수는 매기지 않았으므로 어느 쪽이 나은지는 여기서 알 수 없습니다. 아래에 답을"
    " 나란히 놓았습니다. <code>pronk arena</code>를 쓰면 이름을 가린 채 투표할 수 있습니다.",
    "gain.accuracy": "{items}에서 <b>{run}</b>의 정확도는 {value}",
    "gain.nll": "{items}에서 <b>{run}</b>의 손실은 목표 토큰당 {value} nat",
    "gain.other": "{items}에서 <b>{run}</b>의 {metric} 값은 {value}",
    "gain.no-base": "{gain}입니다. 베이스를 재지 않았으므로 얼마나 나아졌는지는 알 수 없습니다.",
    "gain.base": "{gain}, 베이스는 {value}",
    "gain.perplexities": "{gain}(퍼플렉시티는 각각 {run}, {base})",
    "gain.not-compared": "{gain}입니다.",
    "gain.better": "{gain}입니다. 차이는 {difference}(95% 신뢰 구간 {interval})이며, 우연만으로는 설명되지 않습니다.",
    "gain.worse": "{gain}입니다. 차이는 {difference}(95% 신뢰 구간 {interval})이며, 우연만으로는 설명되지 않을 만큼"
    " 나빠졌습니다.",
    "gain.tie": "{gain}입니다. 차이는 {difference}(95% 신뢰 구간 {interval})이며, 우연일 수 있습니다. 무승부입니다.",
    "gain.tie-among": "{gain}입니다. 차이는 {difference}(95% 신뢰 구간 {interval})이지만, {comparisons} 가운데"
    " 하나라면 우연일 수 있습니다. 무승부입니다.",
    "few-shot.better": "프롬프트에 {examples}를 넣은 베이스는 {value}입니다. 이 실행은 그보다 낫습니다.",
    "few-shot.worse": "프롬프트에 {examples}를 넣은 베이스는 {value}입니다. 이 실행보다 나으므로 파인튜닝이 필요"
    " 없습니다.",
    "few-shot.tie": "프롬프트에 {examples}를 넣은 베이스는 {value}입니다. 이 실행과의 차이는 우연일 수 있습니다.",
    "few-shot.not-compared": "프롬프트에 {examples}를 넣은 베이스는 {value}입니다.",
    "lead.one": "튜닝한 다른 실행보다 앞선 것은 우연만으로는 설명되지 않습니다.",
    "lead.all": "튜닝한 다른 실행 {n}개 모두보다 앞선 것은 우연만으로는 설명되지 않습니다.",
    "lead.tie-one": "튜닝한 다른 실행보다 앞선 것은 우연일 수 있습니다.",
    "lead.tie-all": "튜닝한 다른 실행 {n}개보다 앞선 것은 모두 우연일 수 있습니다.",
    "lead.tie-some": "다음 실행보다 앞선 것은 우연일 수 있습니다: {names}.",
    "needed.never": "테스트 항목을 아무리 모아도 가릴 수 없습니다.",
    "needed.one": "가리려면 테스트 항목이 {n}개쯤 필요합니다.",
    "needed.first": "그중 가장 빨리 가려지는 것에 테스트 항목이 {n}개쯤 필요하고, 마지막 것은 아무리 모아도 가릴 수"
    " 없습니다.",
    "needed.range": "그중 하나라도 가리려면 테스트 항목이 {first}개쯤, 모두 가리려면 {last}개쯤 필요합니다.",
    "tally.all": "튜닝한 실행 {n}개 모두 우연을 넘어서는 차이로 베이스보다 낫습니다.",
    "tally.some": "튜닝한 실행 {n}개 가운데 {better}개는 우연을 넘어서는 차이로 베이스보다 낫고, {ties}개는"
    " 베이스와 가릴 수 없으며, {worse}개는 더 나쁩니다.",
    "ties.none": "검정한 {differences} 가운데 무승부는 없습니다.",
    "ties.one": "검정한 {differences} 가운데 무승부는 1건입니다.",
    "ties.many": "검정한 {differences} 가운데 무승부는 {n}건입니다.",
    "unfinished": "{runs}는 끝까지 학습하지 못했습니다.",
    # what the study does not say
    "limits.title": "이 결과가 말하지 않는 것",
    "limits.intervals": "구간은 95% 신뢰 구간이며 보정하지 않았습니다. 각각 따로 읽어야 합니다. 판정은 이 실험의"
    " {comparisons} 전체를 감안해 보정했습니다(Holm). 그래서 구간에 0이 들지 않아도 무승부일 수 있습니다.",
    "limits.ties": "무승부는 {items}만으로는 가릴 수 없다는 뜻이지, 두 실행이 같다는 뜻이 아닙니다.",
    "limits.chosen": "가장 좋은 실행은 바로 이 테스트 항목으로 골랐으므로 실제보다 조금 더 좋아 보입니다.",
    "limits.seeds": "설정마다 시드 하나로만 학습했습니다. 시드가 달라지면 결과가 얼마나 달라지는지는 재지 않았습니다.",
    "limits.validation": "다음 실행은 과적합 여부를 판정하지 못했습니다: {runs}.",
    "limits.generated": "라벨의 우도만 재었습니다. 직접 물었을 때 어떤 답을 쓰는지는 재지 않았습니다.",
    "limits.labels-only": "손실은 정답을 얼마나 예상했는지만 말해 줍니다. 직접 쓴 답이 맞는지는 재지 않았습니다.",
    "limits.unfinished": "끝까지 학습하지 못한 실행에 대해서는 아무것도 알 수 없습니다.",
    "limits.data": "모두 데이터 하나를 한 가지로 나누어 잰 결과입니다({items}). 데이터가 다르거나 달리 나누면"
    " 결과도 달라질 수 있습니다.",
    # ranking
    "ranking.title": "순위",
    "ranking.note": "{metric} 순입니다. “베이스 대비”는 같은 테스트 항목에서 잰 차이이며, 판정은 Holm의 방법으로"
    " 보정했습니다.",
    "ranking.unscored": "모델이 쓴 답의 길이와 개수만 세었으며, 점수는 매기지 않았습니다.",
    "ranking.region": "실행 순위",
    "ranking.against": "베이스 대비",
    "ranking.overfitting": "과적합",
    "run": "실행",
    "runs": "실행",
    "failure": "<b>{run}</b>: {status}",
    "failure.message": '<b>{run}</b>: {status}. <span lang="en">{message}</span>',
    "failure.failed": "실패했습니다",
    "failure.interrupted": "중단되었습니다",
    # comparisons
    "comparisons.title": "비교",
    "comparisons.note": "차이는 같은 테스트 항목에서 항목별로 잰, 뒤의 실행에서 앞의 실행을 뺀 값입니다. 구간은 95%"
    " 신뢰 구간이며 <b>보정하지 않았으므로</b> 각각 따로 읽어야 합니다. 판정은 이 실험의 비교 {family}건 전체를"
    " 감안해 보정한 p값을 따릅니다. 그래서 구간에 0이 들지 않아도 무승부일 수 있습니다.",
    "comparisons.note-one": "차이는 같은 테스트 항목에서 항목별로 잰, 뒤의 실행에서 앞의 실행을 뺀 값입니다.",
    "comparisons.region": "비교: {metric}",
    "comparisons.verdict": "뒤의 실행에 대한 판정",
    "comparisons.difference": "차이",
    "comparisons.interval": "95% 신뢰 구간, 보정 전. 점선이 0입니다",
    "comparisons.p": "p",
    "comparisons.p-adjusted": "보정한 p",
    "comparisons.items": "필요한 항목 수",
    "comparisons.reason": "비교 대상",
    "comparisons.summary": "{comparisons}, {ties}",
    "comparisons.summary-lower": "{comparisons}, {ties}, 낮을수록 좋음",
    "comparisons.no-number": "알 수 없음",
    "reason.base": "자신의 베이스",
    "reason.best": "가장 좋은 실행",
    "reason.best-group": "시드 묶음 가운데 가장 좋은 것",
    "reason.few-shot": "프롬프트에 예시를 넣은 베이스",
    # axes
    "axes.title": "설정에 따른 변화",
    "axes.note": "설정값에 따른 {metric} 값과 95% 신뢰 구간(보정 전)입니다. 한 선 위에서는 다른 설정이 모두"
    " 같습니다. 고리는 그 값이 같은 선의 다른 모든 값보다 우연을 넘어서는 차이로 낫다는 표시입니다. 고리가 없으면"
    " 이 항목들만으로는 어떤 값이 가장 좋은지 가릴 수 없습니다.",
    "axes.seeds": "시드가 여럿이면 시드마다 점을 하나씩 찍고 선은 그 평균을 잇습니다. 비교는 모든 시드를 묶어서"
    " 합니다.",
    "axes.validation": "검증 손실",
    "axes.no-validation": "검증 행이 없어 검증 손실은 나란히 보여 줄 수 없습니다.",
    "axes.line": "{line}: {said}",
    "axes.one": "{best}에서 가장 좋고, 다른 모든 값보다 우연을 넘어서는 차이로 낫습니다.",
    "axes.some": "{best}에서 가장 좋습니다. 우연을 넘어서는 차이가 나는 값: {worse}. 가릴 수 없는 값: {ties}.",
    "axes.none": "{best}에서 가장 좋지만 다음 값과는 가릴 수 없습니다: {ties}. 우연을 넘어 가장 좋은 값은 없습니다.",
    "axes.no-line": "이 {n}개 선 모두에서 가장 좋은 값을 다른 값과 가릴 수 없습니다.",
    "axes.not-compared": "{best}에서 가장 좋습니다. 이 선의 값끼리는 비교하지 않았습니다.",
    "axes.region": "{axis}에 따른 {metric}",
    # two settings
    "grid.title": "두 설정을 함께 보기",
    "grid.note": "{metric} 값입니다. 진할수록 좋습니다. 괄호 안은 95% 신뢰 구간(보정 전)이며, 여러 시드로"
    " 학습했다면 몇 개의 평균인지를 적었습니다.",
    "grid.best": "테두리를 두른 값은 다른 모든 값보다 우연을 넘어서는 차이로 낫습니다.",
    "grid.no-best": "테두리를 두른 값이 없습니다. 가장 좋은 값과 가릴 수 없는 다른 값이 있기 때문입니다.",
    "grid.region": "{row}, {column}에 따른 {metric}",
    "grid.corner": "{row} ↓ {column} →",
    "grid.none": "–",
    # seeds
    "seeds.title": "시드에 따른 차이",
    "seeds.note": "시드만 다른 실행들입니다. 점은 시드 하나하나이고, 막대는 그 평균의 95% 신뢰 구간(보정 전)으로"
    " 시드와 항목의 우연을 모두 담습니다.",
    "seeds.said": "시드만 바꾸어도 {metric} 값이 {deviation}쯤 달라집니다(설정 안에서 잰 표준편차, {groups}를 합친"
    " 값). 그래서 같은 설정의 실행 둘은 {two}쯤 차이 납니다. 설정별 평균은 많게는 {apart}만큼 떨어져 있습니다.",
    "seeds.said-one": "시드만 바꾸어도 {metric} 값이 {deviation}쯤 달라집니다(표준편차). 그래서 이 설정의 실행 둘은"
    " {two}쯤 차이 납니다.",
    "seeds.region": "시드에 따른 {metric}",
    "seeds.setting": "설정",
    "seeds.mean": "평균",
    "seeds.range": "최저와 최고",
    "seeds.deviation": "표준편차",
    # cost and quality
    "quality.title": "비용과 품질",
    "quality.note": "{cost}에 따른 {metric} 값과 95% 신뢰 구간(보정 전)입니다. 계단선은 파레토 경계입니다. 잰"
    " 값으로 볼 때 같거나 더 적은 비용으로 이만큼 하는 다른 실행이 없는 실행들을 잇습니다. 점선은 비용이 들지 않는,"
    " 손대지 않은 베이스입니다.",
    "quality.note-no-base": "{cost}에 따른 {metric} 값과 95% 신뢰 구간(보정 전)입니다. 계단선은 파레토 경계입니다."
    " 잰 값으로 볼 때 같거나 더 적은 비용으로 이만큼 하는 다른 실행이 없는 실행들을 잇습니다.",
    "quality.tokens": "학습 토큰",
    "quality.seconds": "학습 시간(초)",
    "quality.tokens-inside": "학습 토큰 수",
    "quality.seconds-inside": "학습 시간(함께 학습한 실행끼리는 토큰 수에 따라 나눈 시간)",
    "quality.same": "튜닝한 실행은 모두 비용이 거의 같아서, 비용으로는 고를 것이 없습니다.",
    "quality.region": "파레토 경계의 실행",
    "quality.cost": "비용",
    "quality.step": "바로 앞의 실행 대비",
    "quality.interval": "95% 신뢰 구간",
    "quality.not-compared": "비교하지 않음",
    "quality.front": "파레토 경계의 실행, 비용이 적은 순서:",
    # curves
    "curves.title": "손실 곡선",
    "curves.train": "학습 손실(평활)",
    "curves.validation": "검증 손실",
    "curves.note": "앞부분을 함께 학습한 실행은 그 부분의 곡선도 같습니다.",
    "curves.marked": "고리는 과적합이 시작된 곳입니다.",
    "curves.epoch": "에폭",
    "curves.nats": "목표 토큰당 nat",
    # overfitting
    "overfitting.title": "과적합",
    "overfitting.note": "학습에 쓰지 않은 검증 행으로 판정합니다. 같은 행들에서 우연을 넘어서는 상승이 보일 때만"
    " 과적합으로 봅니다.",
    "overfitting.verdict.overfitting": "과적합",
    "overfitting.verdict.not overfitting": "과적합 아님",
    "overfitting.verdict.still improving": "아직 나아지는 중",
    "overfitting.verdict.not assessed": "판정하지 못함",
    "overfitting.since": "{verdict}, {epoch}에폭부터",
    "overfitting.plain": "{verdict}.",
    "overfitting.unknown": "{verdict}: {reason}.",
    "overfitting.lowest": "검증 손실은 {lowest}에폭에서 가장 낮았습니다({value})",
    "overfitting.rise": "검증 손실은 {lowest}에폭에서 가장 낮았고({value}) {last}에폭에서는 그보다 {rise}"
    " 높았습니다(95% 신뢰 구간 {interval}, p {p}, 가장 낮은 지점을 고른 것까지 감안)",
    "overfitting.overfitting": "{verdict}. {rise}. 그동안 학습 손실은 {fall}만큼 내려갔습니다. {lowest}에폭에서"
    " 멈추세요.",
    "overfitting.improving": "{verdict}. 검증 손실은 {since}에폭에서 {last}에폭까지 {fall}만큼 내려갔습니다(95%"
    " 신뢰 구간 {interval}). 더 오래 학습하면 나아질 수 있습니다.",
    "overfitting.reason": "{verdict}. {rise}. {reason}.",
    "overfitting.chance": "{verdict}. {rise}. 이 차이는 우연일 수 있습니다.",
    "overfitting.last": "{verdict}. {rise}. 마지막 지점이지만 그 앞보다 별로 낮지 않습니다.",
    "overfitting.why.no-validation": "검증 행이 없습니다",
    "overfitting.why.once": "검증 손실을 한 번만 재었습니다",
    "overfitting.why.few-rows": "검증 행이 {rows}개뿐입니다. 적어도 {fewest}개가 필요합니다",
    "overfitting.why.diverged": "학습 손실도 올랐으므로 발산입니다. 학습률을 낮춰 보세요",
    "overfitting.weights-early": "일찍 멈췄습니다. 어댑터와 지표는 전체 {steps}스텝 가운데 {step}스텝의 것입니다.",
    "overfitting.weights-end": "끝까지 학습했습니다. 어댑터와 지표는 전체 {steps}스텝 가운데 {step}스텝의 것입니다.",
    # confusion matrices
    "confusion.title": "혼동 행렬",
    "confusion.note": "행은 정답 라벨, 열은 실행의 답이며, 진하기는 그 행에서 차지하는 비율입니다. 해석할 수 없는"
    " 답은 따로 한 열에 모으고 오답으로 셉니다.",
    "confusion.likelihood": "라벨 우도 기준",
    "confusion.generated": "생성한 답 기준",
    "confusion.accuracy": "정확도 {value}",
    "confusion.region": "{run}의 혼동 행렬, {kind}",
    "confusion.figures": "{run}의 라벨별 지표, {kind}",
    "confusion.class": "라벨",
    "confusion.precision": "정밀도",
    "confusion.recall": "재현율",
    "confusion.f1": "F1",
    "confusion.items": "항목",
    "confusion.macro": "매크로 평균",
    "confusion.weighted": "가중 평균",
    "unparsable": "해석 불가",
    # answers side by side
    "answers.title": "답 나란히 보기",
    "answers.note": "처음 {n}개 테스트 항목에 그리디 방식으로 생성한 답을 그대로 보여 줍니다. “잘림”은 끝맺기 전에"
    " 최대 길이에 이르렀다는 뜻입니다.",
    "answers.figures": "ROUGE-L {rouge}, chrF {chrf}",
    "answers.cut": "잘림",
    "answers.empty": "빈 답",
    "answers.more": "{models}의 답은 각 폴더의 items/answers.jsonl에 있습니다.",
    "item": "항목",
    "reference": "정답",
    # what changed
    "classes.title": "라벨별로 얻은 것과 잃은 것",
    "classes.note": "손대지 않은 베이스와 실행을 항목별로 견주어, 라벨마다 몇 개를 새로 맞히고 몇 개를 틀리게"
    " 되었는지 셉니다. 개수일 뿐이며 라벨별로 검정하지는 않습니다.",
    "classes.region": "{run}의 라벨별 변화",
    "classes.before": "베이스 정답",
    "classes.lost": "잃음",
    "classes.gained": "얻음",
    "classes.after": "실행 정답",
    "classes.net": "증감",
    "classes.all": "모든 라벨",
    "classes.summary": "얻음 {gained}개, 잃음 {lost}개",
    "flips.title": "항목별 변화",
    "flips.note": "<b>{base}</b>, <b>{run}</b>의 답이 갈린 항목입니다({kind}).",
    "flips.likelihood": "라벨 우도 기준",
    "flips.generated": "생성한 답 기준",
    "flips.fixed": "맞히게 됨",
    "flips.fixed-meaning": "베이스는 틀리고 실행은 맞힘",
    "flips.broken": "틀리게 됨",
    "flips.broken-meaning": "베이스는 맞히고 실행은 틀림",
    "flips.first": "{meaning}, 처음 {n}개",
    "flips.region": "{title}: 항목",
    "flips.wrote": "쓴 답 <q>{text}</q>",
    "flips.item": "항목 {id}",
    "flips.none": "없습니다.",
    # settings, cost, facts
    "settings.title": "달라지는 설정",
    "cost.title": "비용",
    "cost.total": "실험 전체에 {time} 걸렸습니다.",
    "cost.region": "실행별 비용",
    "cost.parameters": "학습한 파라미터",
    "cost.steps": "스텝",
    "cost.tokens": "토큰",
    "cost.time": "시간",
    "cost.speed": "초당 토큰",
    "cost.memory": "최대 메모리",
    "cost.shared": "학습을 함께한 실행: {runs}",
    "data.title": "데이터",
    "environment.title": "환경",
    # several studies
    "reason.again": "같은 레시피를 다시 실행",
    "across.title": "실험 {n}개 비교",
    "across.eyebrow": "pronk compare",
    "across.note": "{metric} 순입니다. 모두 같은 {items}에서 잰 값이며, “베이스 대비” 판정은 Holm의 방법으로"
    " 보정했습니다.",
    "across.comparisons": "차이는 항목별로 잰, 뒤의 실행에서 앞의 실행을 뺀 값입니다. 구간은 95% 신뢰 구간이며"
    " <b>보정하지 않았으므로</b> 각각 따로 읽어야 합니다. 판정은 이 페이지의 비교 {family}건 전체를 감안해 보정한"
    " p값을 따릅니다.",
    "across.study": "실험",
    "across.date": "날짜",
    "across.folder": "폴더",
    "across.device": "장치",
    "across.studies": "실험 목록",
    "across.all": "실험 {n}개",
    "across.differences": "실험마다 다른 것",
    "across.differences-note": "레시피 키, 데이터 행 수, 버전입니다. 두 실험의 실행이 다른 까닭은 이 가운데 어느"
    " 것일 수도 있습니다.",
    "across.same": "레시피, 데이터, 환경이 모두 같습니다.",
    "across.key": "설정",
    "across.base": "<b>{row}</b>: 한 행으로 보이며 값은 {study}의 것입니다. 모든 실험에서 똑같지는"
    " 않았습니다({metric} {figures}).",
    "across.figure": "{study} {value}",
    # how this was judged
    "method.title": "판정 방법",
    "method.items": "<b>같은 항목.</b> 모든 비교는 같은 테스트 항목에서 두 실행의 결과를 짝지어 합니다. 차이는 뒤의"
    " 실행에서 앞의 실행을 뺀 값입니다.",
    "method.accuracy": "<b>정확도.</b> McNemar의 정확 검정을 쓰고, 구간은 Tango(1998)의 스코어 방법으로 구합니다."
    " 정확도 하나의 구간은 Wilson(1927)의 방법을 따릅니다.",
    "method.resampling": "<b>매크로 F1, 손실, ROUGE-L, chrF.</b> 항목마다 두 실행의 결과를 맞바꾸는 순열 검정을"
    " 20,000번 이상 하고 +1 보정을 합니다(Phipson &amp; Smyth 2010). 구간은 항목을 짝지은 부트스트랩 5,000번의"
    " 백분위수이며, 몇몇 항목이 결과를 좌우하면 그만큼 넓힙니다(Hesterberg 2015).",
    "method.similarity": "<b>ROUGE-L과 chrF.</b> 둘 다 0에서 1 사이이며, 그리디 방식의 답을 항목마다 정답 하나와"
    " 견준 값의 평균입니다. ROUGE-L(Lin 2004)은 단어의 최장 공통 부분 수열로 구한 F1입니다. 단어는 글자와 숫자가"
    " 이어진 것을 소문자로 바꾼 것이므로, 한국어 단어는 조사가 붙은 어절이고, 띄어 쓰지 않는 문자에서는 글자"
    " 하나하나가 단어입니다. chrF(Popović 2015)는 여섯 글자까지의 문자 n-그램으로 구한 F2입니다. 둘 다 정답의"
    " 표현과 얼마나 겹치는지를 잴 뿐, 옳은지를 재지는 않습니다.",
    "method.many": "<b>여러 번의 비교.</b> p값은 모든 지표를 통틀어 이 실험의 비교 {family}건 전체에 대해 Holm의"
    " 방법으로 보정합니다. “더 나음”과 “더 나쁨”은 보정한 p값이 0.05보다 작다는 뜻이고, 무승부는 그 차이가 우연일"
    " 수 있다는 뜻이지 두 실행이 같다는 뜻이 아닙니다. 구간은 보정하지 않습니다.",
    "method.one": "<b>한 번의 비교.</b> p값을 보정할 필요가 없습니다. “더 나음”과 “더 나쁨”은 p값이 0.05보다 작다는"
    " 뜻이고, 무승부는 그 차이가 우연일 수 있다는 뜻이지 두 실행이 같다는 뜻이 아닙니다.",
    "method.needed": "<b>필요한 항목 수.</b> 무승부일 때, 항목들이 지금만큼 엇갈리고 차이가 이 크기 그대로라면"
    " 테스트 항목이 몇 개쯤 있어야 Holm 보정 뒤에도 80%의 검정력으로 유의해지는지를 말합니다(맞고 틀림은 Connor"
    " 1987, 나머지는 정규 근사). 잰 차이 자체도 확실하지 않으므로 대략의 자릿수로만 보세요. “알 수 없음”은 차이가"
    " 0이거나 백만 개가 넘게 필요하다는 뜻입니다.",
    "method.overfitting": "<b>과적합.</b> 마지막 검증을 가장 낮았던 검증과 행별로 견줍니다. 모든 평가에서 행의"
    " 부호를 똑같이 뒤집고, 매번 앞선 모든 평가에 대한 표준화한 상승 가운데 가장 큰 것을 택하므로(Westfall &amp;"
    " Young 1993) 가장 낮은 지점을 고른 것까지 감안됩니다. 구간은 짝지은 부트스트랩의 것이며 이를 감안하지"
    " 않습니다.",
    "method.selection": "<b>선택.</b> 가장 좋은 실행은 바로 이 테스트 항목으로 골랐으므로, 그 지표와 앞선 정도는 새"
    " 데이터에서보다 조금 더 좋아 보입니다. 실행이 많을수록 더 그렇습니다.",
    "method.seeds": "<b>시드.</b> 두 실행의 비교는 테스트 항목을 고를 때의 우연은 감안하지만 학습할 때의 우연은"
    " 감안하지 않습니다. 시드가 다르면 다른 실행이 됩니다. 시드만 다른 실행들은 “(시드 3개)”처럼 한 묶음으로 적고,"
    " 묶음끼리의 비교는 두 우연을 모두 감안합니다. 시드와 항목의 교차 임의 효과에 t 분포를 쓰며, 자유도는 시드가"
    " 둘일 때부터 맞도록 정했습니다(포함 확률은 시드 2개에서 94.6~96.6%, 3개 이상에서 94.5~95.7%). 시드가 적으면"
    " 구간이 넓을 수밖에 없습니다.",
    "method.loss": "<b>손실과 퍼플렉시티.</b> 정답의 목표 토큰 하나당 값입니다. 토크나이저가 다르면 견줄 수"
    " 없으므로 베이스가 다른 실행은 이 값으로 비교하지 않습니다.",
}
