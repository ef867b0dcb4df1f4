"""The JSON body of an API request, parsed strictly and with bounded cost."""

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from rest_framework.parsers import BaseParser

from orchestration.problems import ApiError


def _refuse_constant(name: str) -> NoReturn:
    raise ApiError("invalid_json", f"{name} is not JSON.")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ApiError("invalid_json", "An object names the same field twice.")
    return found


class StrictJSONParser(BaseParser):
    """RFC 8259 JSON in UTF-8: no NaN, no duplicate fields, no unbounded nesting or size.

    REST framework's own parser lets RecursionError through as a 500 and reads the body whole
    whatever its size.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        limit = settings.MAX_JSON_BYTES
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise ApiError("body_too_large", f"The body is larger than {limit:,} bytes.")
        try:
            parsed = json.loads(
                body.decode("utf-8"),
                parse_constant=_refuse_constant,
                object_pairs_hook=_refuse_duplicates,
            )
        except RecursionError:
            raise ApiError("json_too_deep") from None
        except UnicodeDecodeError:
            raise ApiError("invalid_json", "The body is not UTF-8.") from None
        except ValueError as error:
            where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise ApiError("invalid_json", f"The body is not valid JSON{where}.") from None
        if not isinstance(parsed, dict):
            raise ApiError("not_an_object")
        return parsed
