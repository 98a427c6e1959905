"""Presidio beside our own recognisers, with the network refused."""

import socket

import pytest

from evalrun.errors import UserError
from evalrun.privacy import redactor

pytest.importorskip("presidio_analyzer", reason="needs presidio-analyzer (extra privacy)")


def test_it_finds_more_and_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(*_: object, **__: object) -> None:
        tried.append(_)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    clean = redactor({"redact": "presidio"}, None)
    text = "ana@example.org pays by 4111 1111 1111 1111 or from 1BoatSLRHtKNngkdXEeobR76b53LETtpyT"
    assert clean(text) == "<EMAIL_1> pays by <CREDIT_CARD_1> or from <CRYPTO_WALLET_1>"
    assert not tried and not clean.failed


def test_a_model_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match="no folder of a spaCy model"):
        redactor({"redact": "presidio", "presidio": {"model": "/nowhere"}}, None)
