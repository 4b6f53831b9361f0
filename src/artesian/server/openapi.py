"""What OpenAPI says beside the routes: the schemas of the views, of job files, of refusals."""

from typing import Any

import msgspec

from artesian.kernel.goodput import Goodput
from artesian.kernel.training import TrainingSummary
from artesian.model import jobfile, views
from artesian.server.problems import MEDIA_TYPE
from artesian.server.submission import Submission

_VIEWS: list[type] = [
    views.JobPage,
    views.JobView,
    views.JobIds,
    views.AttemptView,
    views.Decision,
    views.LogPage,
    views.MovesView,
    views.FleetView,
    views.NodePage,
    views.NodeView,
    views.TeamView,
    views.QueueView,
    views.TokenView,
    views.NewToken,
    Goodput,
    TrainingSummary,
    Submission,
]
_FASTAPIS_ERRORS = ("HTTPValidationError", "ValidationError")
_REF = "#/components/schemas/{name}"
_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _PROBLEM}
    for status, text in {
        400: "The request makes no sense.",
        401: "A token is missing, or it is no good.",
        403: "Not with this token, or from this page.",
        404: "There is no such thing, or not for this token.",
        409: "It is too late for that.",
        413: "The body is too large.",
        415: "The body is of no known kind.",
        421: "The server is not called so.",
        422: "The document or a parameter has mistakes.",
        429: "Too much at once: see Retry-After.",
        503: "The journal cannot be used now: see Retry-After.",
    }.items()
}
"""What every route may answer."""


def completed(found: dict[str, Any]) -> dict[str, Any]:
    """Return the description with the schemas that its routes name."""
    _, components = msgspec.json.schema_components(_VIEWS, ref_template=_REF)
    own = found.setdefault("components", {}).get("schemas", {})
    schemas = {
        **{name: schema for name, schema in own.items() if name not in _FASTAPIS_ERRORS},
        **components,
        "Problem": _problem(),
        "JobFile": _job_file(),
        "Bulk": _bulk(),
        "AttemptList": _list_of("attempts", "AttemptView"),
        "TeamList": _list_of("teams", "TeamView"),
        "TokenList": _list_of("tokens", "TokenView"),
        "Waterfall": _waterfall(),
        "JobReport": {
            "type": "object",
            "required": ["job", "training", "goodput", "waterfall"],
            "properties": {
                "job": _ref("JobView"),
                "training": _ref("TrainingSummary"),
                "goodput": _ref("Goodput"),
                "waterfall": _ref("Waterfall"),
            },
        },
    }
    found["components"]["schemas"] = schemas
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"token": []}, {}]
    for path in found["paths"].values():
        for operation in path.values():
            _without_fastapis_own(operation)
    return found


def _without_fastapis_own(operation: dict[str, Any]) -> None:
    """FastAPI describes 422 as its own form, and a good answer of a status that no route gives."""
    for status, response in operation["responses"].items():
        if status == "422":
            response["content"] = _PROBLEM
        elif response.get("content") == {"application/json": {"schema": {}}}:
            del response["content"]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


def _list_of(key: str, name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [key],
        "properties": {key: {"type": "array", "items": _ref(name)}},
    }


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    mistake = {
        "line": {"type": "integer"},
        "column": {"type": "integer"},
        "subject": text,
        "text": text,
        "hint": {"type": ["string", "null"]},
    }
    return {
        "type": "object",
        "description": "RFC 9457; detail is the whole sentence, subject, expected and actual are its parts.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            **dict.fromkeys(("type", "title", "detail", "subject", "expected", "actual", "hint"), text),
            "status": {"type": "integer"},
            "mistakes": {"type": "array", "items": {"type": "object", "properties": mistake}},
        },
    }


def _job_file() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "A job file: docs/guides/job-file.md has every key.",
        "required": ["name", "devices", "command"],
        "properties": {key: {} for key in jobfile.KEYS},
        "additionalProperties": False,
        "example": {"name": "first", "devices": 1, "command": ["python", "train.py"]},
    }


def _bulk() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["jobs"],
        "properties": {
            "jobs": {"type": "array", "minItems": 1, "items": _ref("JobFile")},
            "base_dir": {"type": "string", "pattern": "^/"},
            "env": {"type": "object", "additionalProperties": {"type": "string"}},
            "home": {"type": ["string", "null"]},
        },
    }


def _waterfall() -> dict[str, Any]:
    number = {"type": "number"}
    loss = {"type": "object", "properties": {"cause": {"type": "string"}, "device_s": number}}
    stage = {
        "type": "object",
        "required": ["name", "left", "lost"],
        "properties": {
            "name": {"type": "string"},
            "left": {"type": ["number", "null"]},
            "lost": {"type": "array", "items": loss},
        },
    }
    return {
        "type": "object",
        "required": ["unit", "simulated", "nameplate", "stages", "notes"],
        "properties": {
            "unit": {"const": "device_seconds"},
            "simulated": {"type": "boolean"},
            "nameplate": number,
            "stages": {"type": "array", "items": stage},
            "notes": {"type": "array", "items": {"type": "string"}},
        },
    }
