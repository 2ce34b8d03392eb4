"""What the schema of a request cannot say, by the answer that says it: such a failure of a check is none."""
import re

import schemathesis

KNOWN = [
    # JSON Schema does not see how a number is written: 1e30 is taken, the same number in digits is not.
    ("RejectedPositiveData", 400, r"the integer -?\d+ cannot be kept exactly"),
    # The schema counts characters, the server bytes.
    ("RejectedPositiveData", 400, r"agent_id: expected at most 256 bytes"),
    # A cursor has a number for each shard; only the server knows how many.
    ("RejectedPositiveData", 400, r"cursor: expected a cursor from a Link header of this server"),
    # The bounds are the size of the tree, and each other.
    ("RejectedPositiveData", 400, r"expected 1 <= from <= to <= \d+"),
    # It takes a moment until an event is under a checkpoint; 503 says so.
    ("ServerError", 503, r"not yet under a signed checkpoint"),
]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    return not any(
        type(failure).__name__ == name and response.status_code == status and re.search(text, response.text)
        for name, status, text in KNOWN
    )


@schemathesis.check
def errors_have_a_body(ctx, response, case):
    """Also where Schemathesis does not look: at what another method than those of the path is answered."""
    if response.status_code < 400 or response.request.method == "HEAD":
        return
    kind = (response.headers.get("content-type") or ["none"])[0]
    assert kind in ("application/json", "application/x-protobuf"), f"{response.status_code} with content type {kind}"
    if kind == "application/json":
        assert set(response.json()) in ({"error"}, {"code", "message"}), response.text
