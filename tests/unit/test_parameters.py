"""Protects the parameters of deployments: Prefect's server refuses a typo with the nearest valid name."""

from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError

from clepdg_flows.clep_dg import clep_dg
from clepdg_flows.run.prefect_app import NEW, explaining

SCHEMA = parameter_schema(clep_dg).model_dump_for_openapi() | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"preset": "dmo"}, "preset: 'dmo' is not one of ['demo', 'open', 'speech', 'paper']. Did you mean 'demo'?"),
        ({"corpora": ["tess", "radvess"]}, f"valid names. Did you mean 'ravdess'? {NEW}"),
        ({"corpora": ["mine"]}, f"valid names. {NEW}"),
        ({"sources": {"radvess": "x"}}, "Did you mean 'ravdess'?"),
        ({"until": "clp"}, "Did you mean 'clep'?"),
        ({"redo": ["accpt"]}, "redo[0]: 'accpt' is not one of"),
        ({"folds": ["leave-out-radvess"]}, "Did you mean 'leave-out-ravdess'?"),
        ({"overrides": {"clep.epoch": 3}}, "Did you mean 'clep.epochs'?"),
        ({"presett": "demo"}, "parameters: 'presett' is not one of"),
        ({"allow_partial": "maybe"}, "'maybe' is not of type 'boolean'"),
    ],
)
def test_a_typo_is_refused_with_the_nearest_name(wrong: dict[str, Any], said: str) -> None:
    explaining(validate)({"preset": "open"}, SCHEMA, raise_on_error=True)
    with pytest.raises(ValidationError) as caught:
        explaining(validate)({"preset": "open"} | wrong, SCHEMA, raise_on_error=True)
    assert said in str(caught.value)


def test_the_server_checks_parameters_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.server.api import deployments

    from clepdg_flows.run.prefect_app import create_app

    monkeypatch.setattr(deployments, "validate", validate)
    create_app()
    with pytest.raises(ValidationError, match="Did you mean 'demo'"):
        deployments.validate({"preset": "dmo"}, SCHEMA, raise_on_error=True)
