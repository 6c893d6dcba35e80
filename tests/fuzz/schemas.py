"""Values that a JSON Schema allows, as a Hypothesis strategy, for the keywords that the schemas of the package use."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b"])  # so few that a reference is often to something that exists
_STRINGS = st.one_of(NAMES, st.sampled_from(["foundation", "a.count", "cross_entropy"]), st.text(max_size=4))


def values(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of the values that a part of the schema ``root`` allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return st.deferred(lambda: values(root["$defs"][name], root))
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return st.one_of([values(option, root) for option in schema["anyOf"]])
    sort = schema.get("type")
    if sort == "object":
        return _tables(schema, root)
    if sort == "array":
        items = values(schema.get("items", {}), root)
        return st.lists(items, min_size=schema.get("minItems", 0), max_size=min(3, schema.get("maxItems", 3)))
    if sort in ("integer", "number"):
        return _numbers(schema, whole=sort == "integer")
    return {"boolean": st.booleans(), "null": st.none()}.get(str(sort), _STRINGS)


def _tables(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of tables with all required keys, or of tables with names as keys."""
    if "properties" not in schema:
        others = schema.get("additionalProperties")
        return st.dictionaries(NAMES, values(others if isinstance(others, dict) else {}, root), max_size=2)
    fields = {key: values(value, root) for key, value in schema["properties"].items()}
    required = {key: fields.pop(key) for key in schema.get("required", []) if key in fields}
    few = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True) if fields else st.just([])
    return few.flatmap(lambda keys: st.fixed_dictionaries(required | {key: fields[key] for key in keys}))


def _numbers(schema: dict[str, Any], *, whole: bool) -> st.SearchStrategy[Any]:
    """Return a strategy of numbers, small ones and the ends of the allowed range more often than others."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    ends = [end for end in (low, high) if end is not None]
    usual = [0, 1, 2, 3, 10] if whole else [0.0, 0.1, 0.5, 1.0, 2.0]
    number = st.integers(low, high) if whole else st.floats(low, high, allow_nan=False)
    inside = [x for x in [*usual, *ends] if (low is None or x >= low) and (high is None or x <= high)]
    return st.one_of(st.sampled_from(inside or ends or usual), number)
