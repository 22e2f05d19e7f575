"""What the options of a sink mean: the docstrings below the fields of its `Config`.

Read from the source on demand. pydantic would read them whenever a class is made, which is a good
part of the daemon's start.
"""

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema


def schema_of(model: type[BaseModel], references: str = "#/$defs/{model}") -> dict[str, Any]:
    """Its JSON schema, with what each option means as `description`. `references` is the form of
    each `$ref`."""
    return model.model_json_schema(ref_template=references, schema_generator=_WithMeanings)


class _WithMeanings(GenerateJsonSchema):
    # What JSON cannot express is left out.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Of one table; called by pydantic."""
        table, model = super().model_schema(schema), schema["cls"]
        for name, meaning in meanings_of(model).items():
            alias = model.model_fields[name].validation_alias
            table["properties"][alias if isinstance(alias, str) else name]["description"] = meaning
        return table


def meanings_of(model: type[BaseModel]) -> dict[str, str]:
    """`{field: meaning}`, of those that have one. A field's own `description` comes first."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            found |= _docstrings(cls)
    for name, field in model.model_fields.items():
        if field.description:
            found[name] = field.description
    return {name: meaning for name, meaning in found.items() if name in model.model_fields}


@cache
def _docstrings(cls: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        body = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}  # made by code, so that there is no source to read
    found = {}
    for field, below in pairwise(getattr(body, "body", ())):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(meaning))):
                found[name] = inspect.cleandoc(meaning)
    return found
