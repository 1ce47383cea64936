"""What Kubernetes' authorizer says about a call, for the rules of a Role."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.kubernetes_api import Call

__all__ = ["allowing", "parts"]


def allowing(rules: Sequence[Mapping[str, Any]], call: Call) -> set[tuple[str, ...]]:
    """Return the parts of ``rules`` that allow ``call``; empty: it is forbidden."""
    resource = f"{call.resource}/{call.subresource}" if call.subresource else call.resource
    wanted = (call.group, resource, call.verb)
    return {part for part in parts(rules) if part[:3] == wanted and part[3] in {"", call.name}}


def parts(rules: Iterable[Mapping[str, Any]]) -> set[tuple[str, ...]]:
    """Return every (group, resource, verb, name) that ``rules`` name; ``*`` is not understood."""
    return {
        (group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
