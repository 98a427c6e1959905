"""How near answer and target are to each other in the space of an embedding model."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from evalrun.scoring.asking import AskingScorer
from evalrun.scoring.base import MetricInfo, ScorerOptions
from evalrun.scoring.functions import scorer


class EmbeddingOptions(ScorerOptions):
    """The model that is asked."""

    model: str = Field(
        description="Id of a model in `judges` or `models` that makes embeddings. The embedded engine does "
        "with `embeddings: true`."
    )
    batch: int = Field(default=32, ge=1, le=2048, description="Texts in one request at most.")


@scorer(
    "embedding",
    summary="Cosine similarity of answer and target in the embeddings of a model; asked after the run.",
    metric=(
        MetricInfo(
            "",
            "cosine",
            "higher",
            "Mean cosine of the embeddings of the parsed answer and the target, by the model that the "
            "suite names; of several targets the nearest counts. Empty, unparsed and refused answers "
            "count as 0; samples whose texts got no embedding are left out. What is near depends on the "
            "model alone.",
            (-1.0, 1.0),
        ),
    ),
)
class EmbeddingSimilarity(AskingScorer[EmbeddingOptions]):
    """Cosine of the embeddings of answer and target; of several targets the nearest counts."""

    shorthand = "model"

    @property
    def models(self) -> Sequence[str]:
        """The one model."""
        return (self.options.model,)
