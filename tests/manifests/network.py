"""Who may talk to whom, as NetworkPolicies say it to a network that enforces them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

__all__ = ["Outside", "Pod", "may_talk"]

_Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod, by what policies look at."""

    labels: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)
    namespace: Mapping[str, str] = field(default_factory=lambda: {"own": "true"})
    """The namespace's labels."""


@dataclass(frozen=True)
class Outside:
    """An address that is no pod."""

    address: str


OWN = {"own": "true"}
"""The labels of the namespace that the policies are in."""


def may_talk(
    policies: Sequence[_Policy],
    source: Pod,
    target: Pod | Outside,
    port: int,
    protocol: str = "TCP",
) -> bool:
    """Return whether ``source`` gets through to ``port`` of ``target``."""
    leaves = _passes(policies, "Egress", source, target, (port, protocol, target))
    if isinstance(target, Outside):
        return leaves
    return leaves and _passes(policies, "Ingress", target, source, (port, protocol, target))


def _passes(
    policies: Sequence[_Policy],
    direction: str,
    pod: Pod,
    peer: Pod | Outside,
    door: tuple[int, str, Pod | Outside],
) -> bool:
    selecting = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"]
        and pod.namespace == OWN
        and _selects(policy["spec"]["podSelector"], pod.labels)
    ]
    side = "to" if direction == "Egress" else "from"
    rules = [rule for spec in selecting for rule in spec.get(direction.lower(), [])]
    return not selecting or any(
        _is_peer(rule.get(side), peer) and _is_port(rule.get("ports"), *door) for rule in rules
    )


def _is_peer(peers: Sequence[Mapping[str, Any]] | None, peer: Pod | Outside) -> bool:
    return peers is None or any(_fits(one, peer) for one in peers)


def _fits(one: Mapping[str, Any], peer: Pod | Outside) -> bool:
    if isinstance(peer, Outside):
        block = one.get("ipBlock")
        return bool(block) and _holds(block, peer.address)
    if "ipBlock" in one:
        return False  # networks differ about pods' addresses: count on nothing
    namespace = one.get("namespaceSelector")
    is_there = peer.namespace == OWN if namespace is None else _selects(namespace, peer.namespace)
    return is_there and _selects(one.get("podSelector", {}), peer.labels)


def _holds(block: Mapping[str, Any], address: str) -> bool:
    def within(network: str) -> bool:
        return ip_address(address) in ip_network(network)

    return within(block["cidr"]) and not any(within(one) for one in block.get("except", []))


def _is_port(
    ports: Sequence[Mapping[str, Any]] | None, port: int, protocol: str, target: Pod | Outside
) -> bool:
    named = target.ports if isinstance(target, Pod) else {}
    return ports is None or any(
        protocol == one.get("protocol", "TCP") and port == named.get(one["port"], one["port"])
        for one in ports
    )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, "matchExpressions: teach this function first"
    return selector.get("matchLabels", {}).items() <= labels.items()
