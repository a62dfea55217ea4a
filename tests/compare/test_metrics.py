"""The classification report, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from pronk.compare.metrics import classification_report

CLASSES = ("negative", "neutral", "positive")


def test_a_report_by_hand() -> None:
    labels = ["negative"] * 4 + ["neutral"] * 3 + ["positive"] * 1
    predicted = ["negative", "negative", "neutral", None, "neutral", "neutral", None, "negative"]
    report = classification_report(labels, predicted, CLASSES)
    assert report.confusion.tolist() == [[2, 1, 0, 1], [0, 2, 0, 1], [1, 0, 0, 0]]
    assert report.unparsable == 2
    assert report.accuracy == 0.5
    negative, neutral, positive = report.per_class
    assert (negative.precision, negative.recall, negative.support) == (pytest.approx(2 / 3), 0.5, 4)
    assert neutral.f1 == pytest.approx(2 / 3)
    assert (positive.precision, positive.recall, positive.f1, positive.support) == (0, 0, 0, 1)
    assert report.macro.f1 == pytest.approx((4 / 7 + 2 / 3 + 0) / 3)
    assert report.weighted.f1 == pytest.approx((4 * 4 / 7 + 3 * 2 / 3) / 8)


def test_a_class_that_never_occurs_is_left_out_of_the_macro_average_as_in_sklearn() -> None:
    labels, predicted = ["negative", "neutral", "neutral"], ["negative", "negative", "neutral"]
    report = classification_report(labels, predicted, CLASSES)
    assert report.macro.f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert report.per_class[2].support == 0


def test_random_reports_agree_with_sklearn() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        labels, predicted = random.choice(CLASSES, 40).tolist(), random.choice(CLASSES, 40).tolist()
        report = classification_report(labels, predicted, CLASSES)
        assert report.accuracy == pytest.approx(accuracy_score(labels, predicted))
        assert report.weighted.f1 == pytest.approx(f1_score(labels, predicted, average="weighted"))
        assert report.confusion.sum() == 40
        assert report.confusion[:, -1].sum() == report.unparsable == 0


def test_each_class_has_sklearns_figures_unparsable_answers_and_classes_that_never_occur_included() -> None:
    random = np.random.default_rng(1)
    for items in (1, 2, 5, 40):
        labels = random.choice(CLASSES, items).tolist()
        predicted = random.choice([*CLASSES, None], items).tolist()
        report = classification_report(labels, predicted, CLASSES)
        names = ["unparsable" if one is None else one for one in predicted]
        expected = precision_recall_fscore_support(labels, names, labels=list(CLASSES), zero_division=0.0)
        found = [(one.precision, one.recall, one.f1, one.support) for one in report.per_class]
        assert np.allclose(np.transpose(found), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("labels", "predicted"), [([], []), (["neutral"], []), (["neutral"], ["sideways"]), ([None], ["neutral"])]
)
def test_what_cannot_be_scored_is_refused(labels: list, predicted: list) -> None:
    with pytest.raises(ValueError, match=r"must be as many|not among the classes"):
        classification_report(labels, predicted, CLASSES)
