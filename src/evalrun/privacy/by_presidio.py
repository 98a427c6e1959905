"""Presidio's recognisers (extra `privacy`): its patterns by default, names and places with a spaCy model of
one's own. Nothing is fetched: no model, and not the list of public suffixes that its e-mail recogniser wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.privacy.recognisers import Recogniser, Span
from evalrun.suite.privacy import PresidioSpec

ENTITIES: dict[str, str] = {
    "CREDIT_CARD": "credit_card", "CRYPTO": "crypto_wallet", "EMAIL_ADDRESS": "email", "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip", "PHONE_NUMBER": "phone", "MEDICAL_LICENSE": "medical_license", "US_SSN": "us_ssn",
    "US_ITIN": "us_itin", "MAC_ADDRESS": "mac_address",
}  # fmt: skip
"""What is looked for without a model, with our names. Presidio's others are any nine digits, any URL."""
OF_A_MODEL = {"PERSON": "person", "LOCATION": "location", "NRP": "group"}


def presidio_recognisers(spec: PresidioSpec, entities: Sequence[str]) -> dict[str, Recogniser]:
    """One recogniser a kind, all of them by one look at a text. Raises UserError where the package or the
    model is not there."""
    wanted = {**ENTITIES, **(OF_A_MODEL if spec.model is not None else {})}
    analyzer = _analyzer(spec)
    supported = set(analyzer.get_supported_entities(spec.language))
    theirs = [
        name for name, ours in wanted.items() if name in supported and (not entities or ours in entities)
    ]

    @lru_cache(maxsize=64)
    def analyse(text: str) -> tuple[tuple[str, Span], ...]:
        results = analyzer.analyze(
            text, language=spec.language, entities=theirs, score_threshold=spec.threshold
        )
        return tuple((each.entity_type, (each.start, each.end)) for each in results)

    def of_kind(name: str, text: str) -> list[Span]:
        return [span for kind, span in analyse(text) if kind == name]

    # Prefixed, so that they are asked beside our own and not in their place.
    return {
        wanted[name] if name in OF_A_MODEL else f"presidio_{wanted[name]}": partial(of_kind, name)
        for name in theirs
    }


def _analyzer(spec: PresidioSpec) -> Any:
    try:
        import tldextract
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider, NoOpNlpEngine
    except ModuleNotFoundError as error:
        raise UserError(
            f"redact: presidio needs the package {error.name}",
            where="privacy.redact",
            remedy="pip install presidio-analyzer",
        ) from error
    # Its e-mail recogniser would ask the network for the list of public suffixes.
    tldextract.extract = tldextract.tldextract.extract = tldextract.TLDExtract(
        suffix_list_urls=(), cache_dir=None
    )
    if spec.model is None:
        engine: Any = NoOpNlpEngine([{"lang_code": spec.language, "model_name": "none"}])
        engine.load()
    else:
        if not (Path(spec.model) / "meta.json").is_file():
            raise UserError(
                "is no folder of a spaCy model (it has no meta.json)",
                where=f"privacy.presidio.model: {spec.model}",
                remedy="Name the folder that `python -m spacy` or the model's wheel has put on this machine.",
            )
        models = [{"lang_code": spec.language, "model_name": spec.model}]
        engine = NlpEngineProvider(
            nlp_configuration={"nlp_engine_name": "spacy", "models": models}
        ).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[spec.language])
