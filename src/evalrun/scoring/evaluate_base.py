"""What our metrics for the library `evaluate` have in common. Importing it imports that library."""

from __future__ import annotations

from typing import Any, ClassVar

import datasets
import evaluate

TEXT = datasets.Value("string")
LABEL = datasets.Value("int64")
TEXTS = datasets.Sequence(TEXT)


class LocalMetric(evaluate.Metric):  # type: ignore[misc]
    """An `evaluate.Metric` whose data stay in memory. Subclasses say what they take, and compute."""

    title: ClassVar[str]
    text: ClassVar[str]
    prediction: ClassVar[Any] = TEXT
    reference: ClassVar[Any] = TEXT
    also_one_reference: ClassVar[bool] = False
    """Whether a reference may be one text as well as a list of them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"keep_in_memory": True, "seed": 0, **options})

    def _info(self) -> Any:
        features = datasets.Features({"predictions": self.prediction, "references": self.reference})
        single = datasets.Features({"predictions": self.prediction, "references": TEXT})
        return evaluate.MetricInfo(
            description=self.text,
            citation="",
            features=[features, single] if self.also_one_reference else features,
        )
