"""Agreement of annotators against published values and the package krippendorff."""

import krippendorff
import numpy as np
import pytest

from evalrun.analysis.annotators import agreement

TABLE = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
}


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_example(level: str, alpha: float) -> None:
    answers = {
        str(at): {who: values[at] for who, values in TABLE.items() if values[at] is not None}
        for at in range(12)
    }
    found = agreement(answers, level)["alpha"]  # type: ignore[arg-type]
    assert round(found["value"], 3) == alpha
    assert found["ci_low"] <= found["value"] <= found["ci_high"]
    data = [[np.nan if value is None else value for value in values] for values in TABLE.values()]
    assert found["value"] == pytest.approx(krippendorff.alpha(data, level_of_measurement=level))


def test_kappa_of_two_by_hand() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, by chance 0.5, kappa 0.4."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = agreement({str(at): {"a": a, "b": b} for at, (a, b) in enumerate(pairs)}, "nominal")
    assert found["kappa"]["value"] == pytest.approx(0.4)
    assert found["percent"] == pytest.approx(0.7)
    assert found["kappa"]["ci_low"] < 0.4 < found["kappa"]["ci_high"]


def test_what_cannot_be_said() -> None:
    assert agreement({}, "nominal")["alpha"]["value"] is None
    assert agreement({"1": {"a": "x"}}, "nominal")["items"] == 0
    alike = agreement({str(at): {"a": "x", "b": "x"} for at in range(20)}, "nominal")
    assert "not defined" in alike["alpha"]["note"]
    assert alike["percent"] == 1.0


def test_who_stands_apart() -> None:
    answers = {str(at): {"a": "x", "b": "x", "c": "y"} for at in range(10)}
    people = {each["person"]: each for each in agreement(answers, "nominal")["people"]}
    assert people["c"]["with_majority"] == 0.0
    assert people["a"]["compared"] == 0  # the two others disagree
