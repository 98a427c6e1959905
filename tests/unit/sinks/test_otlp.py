"""OTLP's JSON for values that JSON has no numbers for, and what a sink's address may be."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from evalrun.sinks.mlflow import MlflowOptions
from evalrun.sinks.otlp import _value


@pytest.mark.parametrize(
    ("value", "said"), [(1.5, 1.5), (math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_what_is_no_number_is_protobufs_word_for_it(value: float, said: object) -> None:
    assert _value(value) == {"doubleValue": said}


@pytest.mark.parametrize(
    "url",
    [
        "databricks",
        "databricks://profile",
        "https://adb-1.2.azuredatabricks.net",
        "https://dbc-1.cloud.databricks.com/ml",
        "arn:aws:sagemaker:eu-west-1:1:mlflow-tracking-server/x",
    ],
)
def test_servers_with_clients_of_their_own_are_told_of(url: str) -> None:
    with pytest.raises(ValidationError, match="no MLflow server that is spoken to here"):
        MlflowOptions(url=url)


@pytest.mark.parametrize("url", ["https://mlflow.example.org/databricks.com", "http://databricks:5000"])
def test_other_addresses_that_sound_like_them_are_taken(url: str) -> None:
    assert MlflowOptions(url=url).url == url
