"""The admin API conforms to its own OpenAPI document, whatever schemathesis sends."""

from typing import Any

import schemathesis
from hypothesis import settings
from schemathesis import Case, GenerationMode

from fastapi_maintenance import MemoryBackend, document_maintenance
from tests.router.test_router import ADMIN, SECRET, app_on

CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            # FastAPI's 405 names the methods of one route of the path, not of all.
            "allow_header_conformance": {"enabled": False},
            "missing_required_header": {"expected-statuses": [428]},  # RFC 6585 3
            # A schema cannot express an unknown id or tag, times in the wrong order, a patch of a switch that is off.
            "positive_data_acceptance": {"expected-statuses": ["2xx", "303", "403", "404", "409", "412", "422"]},
        }
    }
)
app = app_on(MemoryBackend())
document_maintenance(app)
schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=CONFIG)


@schema.include(tag="maintenance").parametrize()
@settings(deadline=None)
def test_admin_api_conforms_to_its_openapi_document(case: Case[Any]) -> None:
    response = case.call(headers=ADMIN)
    assert SECRET not in response.text
    case.validate_response(response)
    is_documented = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if is_documented and response.status_code == 422:
        (problem,) = response.json()["detail"]
        assert problem["msg"].startswith(
            ("starts_at must be ", "ends_at must be ", "message and ends_at go with on=True")
        )
