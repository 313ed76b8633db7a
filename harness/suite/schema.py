"""The JSON schema of a suite file, for editors."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from harness.registry import METHODS
from harness.suite.file import suite_model


def json_schema(tasks: Collection[str], architectures: Collection[str]) -> dict[str, Any]:
    """The JSON schema of a suite file, for editors: the methods' parameters are those of the registry."""
    schema = suite_model().model_json_schema()
    schema["properties"]["task"]["anyOf"][0]["enum"] = sorted(tasks)
    for properties in (each.get("properties", {}) for each in schema["$defs"].values()):
        if "architecture" in properties:  # of a source of members: what it builds
            properties["architecture"]["examples"] = sorted(architectures)
    items: list[dict[str, Any]] = [{"enum": list(METHODS.all())}]
    for name, method in METHODS.all().items():
        fields = method.parameters.model_json_schema()["properties"]
        choices: dict[str, Any] = {
            key: {"anyOf": [field, {"type": "array", "items": field}]} for key, field in fields.items()
        }
        choices["pool"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        choices["members"] = {"description": "all, or positions from 0, or several lists of positions"}
        body = {"type": ["object", "null"], "properties": choices, "additionalProperties": False}
        described = {"description": method.summary, "type": "object", "properties": {name: body}, "required": [name]}
        items.append({**described, "additionalProperties": False})
    schema["properties"]["methods"]["items"] = {"anyOf": items}
    schema["title"] = "Stockpot suite"
    return schema
