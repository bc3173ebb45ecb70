"""What OpenAPI cannot say: of parameters together, and of numbers as they are written."""

import schemathesis


@schemathesis.hook
def map_query(context, query):
    if query and isinstance(query.get("from"), str) and isinstance(query.get("to"), str):
        # `from` is not after `to`. Offsets reach a day far: within a month one of the two is left out.
        low, high = sorted([query["from"], query["to"]])
        query["from"], query["to"] = low, high
        # A series has 10,000 buckets at most.
        if low[:8] == high[:8] or "interval" in query:
            del query["to"]
    return query


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict) and isinstance(body.get("from"), str) and isinstance(body.get("to"), str):
        # As in a query.
        body["from"], body["to"] = sorted([body["from"], body["to"]])
        if body["from"][:8] == body["to"][:8]:
            del body["to"]
    return integers(body)


def integers(value):
    """45.0 is no integer in the contract of events; it is one in JSON Schema."""
    if isinstance(value, dict):
        return {key: integers(member) for key, member in value.items()}
    if isinstance(value, list):
        return [integers(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
