"""Objects as a Kubernetes API server keeps them: versions, events, selectors, server-side apply."""

import copy
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


class Refused(Exception):
    """The server refuses; becomes a ``Status``."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Event:
    """A change: ``ADDED``, ``MODIFIED`` or ``DELETED``."""

    version: int
    type: str
    plural: str
    object: dict[str, Any]


class Store:
    """Objects of one namespace by (plural, name); every change is an event with a version."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.changed = threading.Condition(threading.RLock())
        self.version = 100
        self.oldest = 0  # versions up to this one are forgotten
        self.events: list[Event] = []
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._managed: dict[tuple[str, str], dict[str, set[tuple[str, ...]]]] = {}

    def get(self, plural: str, name: str) -> dict[str, Any]:
        with self.changed:
            try:
                return copy.deepcopy(self._objects[plural, name])
            except KeyError:
                raise Refused(404, "NotFound", f'{plural} "{name}" not found') from None

    def find(self, plural: str, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        with self.changed:
            found = [one for (kind, _), one in sorted(self._objects.items()) if kind == plural]
            return [copy.deepcopy(one) for one in found if selects(one, labels, fields)]

    def create(self, plural: str, manifest: dict[str, Any]) -> dict[str, Any]:
        made = copy.deepcopy(manifest)
        metadata = made.setdefault("metadata", {})
        name = metadata.get("name") or metadata.get("generateName", "") + uuid.uuid4().hex[:5]
        with self.changed:
            former = self._objects.get((plural, name))
            if former is not None:
                going = "object is being deleted: " * ("deletionTimestamp" in former["metadata"])
                raise Refused(409, "AlreadyExists", f'{going}{plural} "{name}" already exists')
            defaults = {"creationTimestamp": now(), "generation": 1, "uid": str(uuid.uuid4())}
            metadata.update(defaults | metadata)
            metadata |= {"name": name, "namespace": self.namespace}
            return self._record("ADDED", plural, made)

    def replace(self, plural: str, changed: dict[str, Any]) -> dict[str, Any]:
        name = changed["metadata"]["name"]
        with self.changed:
            former = self.get(plural, name)
            if former.get("spec") != changed.get("spec"):
                changed["metadata"]["generation"] = former["metadata"]["generation"] + 1
            if "deletionTimestamp" in changed["metadata"] and not _finalizers(changed):
                return self._remove(plural, changed)
            return self._record("MODIFIED", plural, changed)

    def delete(self, plural: str, name: str, uid: str = "") -> dict[str, Any]:
        """Delete an object and, as background propagation does, what it owns."""
        with self.changed:
            found = self.get(plural, name)
            if uid and uid != found["metadata"]["uid"]:
                message = f"Precondition failed: UID in precondition: {uid}"
                raise Refused(409, "Conflict", f"Operation cannot be fulfilled: {message}")
            if _finalizers(found):
                found["metadata"].setdefault("deletionTimestamp", now())
                return self._record("MODIFIED", plural, found)
            return self._remove(plural, found)

    def apply(
        self, plural: str, manifest: dict[str, Any], manager: str, *, force: bool = False
    ) -> tuple[dict[str, Any], bool]:
        """Apply on the server's side; return the object and whether it is new."""
        name = manifest["metadata"]["name"]
        with self.changed:
            key = (plural, name)
            meant = leaves(manifest)
            managed = self._managed.setdefault(key, {})
            if key not in self._objects:
                managed[manager] = set(meant)
                return self.create(plural, manifest), True
            found = self.get(plural, name)
            present = leaves(found)
            conflicts = [
                f'conflict with "{other}" using {manifest["apiVersion"]}: {_dotted(path)}'
                for other, paths in managed.items()
                for path in sorted(paths & meant.keys())
                if other != manager and present.get(path) != meant[path]
            ]
            if conflicts and not force:
                count = f"{len(conflicts)} conflict" + "s" * (len(conflicts) > 1)
                raise Refused(
                    409, "Conflict", f"Apply failed with {count}: " + "; ".join(conflicts)
                )
            others = set().union(*(p for other, p in managed.items() if other != manager))
            for path in managed.get(manager, set()) - meant.keys() - others:
                _drop(found, path)
            managed[manager] = set(meant)
            changed = merged(found, manifest)
            return (
                found if changed == self.get(plural, name) else self.replace(plural, changed)
            ), False

    def own(self, plural: str, name: str, manager: str, *paths: str) -> None:
        """Let ``manager`` own fields, as an autoscaler does: ``spec.replicas``."""
        managed = self._managed.setdefault((plural, name), {})
        for others in managed.values():
            others -= {tuple(path.split(".")) for path in paths}
        managed.setdefault(manager, set()).update(tuple(path.split(".")) for path in paths)

    def since(self, version: int, plural: str) -> list[Event]:
        """Return the events after ``version``; 410 if they are forgotten."""
        if version < self.oldest:
            raise Refused(410, "Expired", f"too old resource version: {version} ({self.oldest})")
        return [one for one in self.events if one.version > version and one.plural == plural]

    def _record(self, kind: str, plural: str, changed: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        changed["metadata"]["resourceVersion"] = str(self.version)
        key = (plural, changed["metadata"]["name"])
        if kind == "DELETED":
            self._objects.pop(key, None)
            self._managed.pop(key, None)
        else:
            self._objects[key] = copy.deepcopy(changed)
        self.events.append(Event(self.version, kind, plural, copy.deepcopy(changed)))
        self.changed.notify_all()
        return copy.deepcopy(changed)

    def _remove(self, plural: str, found: dict[str, Any]) -> dict[str, Any]:
        gone = self._record("DELETED", plural, found)
        uid = gone["metadata"]["uid"]
        owned = [
            (kind, one["metadata"]["name"])
            for (kind, _), one in self._objects.items()
            if uid in {owner["uid"] for owner in one["metadata"].get("ownerReferences") or []}
        ]
        for kind, name in owned:
            self.delete(kind, name)
        return gone


def now() -> str:
    """Return the time as the API writes it in objects."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def selects(thing: dict[str, Any], labels: str, fields: str) -> bool:
    """Return whether the selectors, as in a query, select ``thing``."""
    own = thing["metadata"].get("labels") or {}
    for term in filter(None, labels.split(",")):
        key, equals, value = term.replace("==", "=").partition("=")
        if key.endswith("!"):
            is_so = own.get(key[:-1]) != value
        elif key.startswith("!"):
            is_so = key[1:] not in own
        else:
            is_so = own.get(key) == value if equals else key in own
        if not is_so:
            return False
    for term in filter(None, fields.split(",")):
        path, _, value = term.replace("==", "=").partition("=")
        found: Any = thing
        for part in path.split("."):
            found = (found or {}).get(part)
        if str(found or "") != value:
            return False
    return True


def merged(base: Any, change: Any) -> Any:
    """Return ``base`` with ``change``; lists of named things are merged by name."""
    if isinstance(base, dict) and isinstance(change, dict):
        both = base | {key: merged(base.get(key), value) for key, value in change.items()}
        return {key: value for key, value in both.items() if value is not None}
    if isinstance(base, list) and isinstance(change, list) and _is_named([*base, *change]):
        by_name = {one["name"]: one for one in base}
        new = {one["name"]: merged(by_name.get(one["name"]), one) for one in change}
        return list((by_name | new).values())
    return copy.deepcopy(change)


def leaves(thing: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return the leaves of a manifest by path, without what identifies it."""
    if isinstance(thing, dict) and thing:
        parts = {key: value for key, value in thing.items() if path or key in {"metadata", "spec"}}
        if path == ("metadata",):
            parts = {key: parts[key] for key in ("labels", "annotations") if key in parts}
        found = [leaves(value, (*path, key)) for key, value in parts.items()]
        return {key: value for one in found for key, value in one.items()}
    if isinstance(thing, list) and thing and _is_named(thing):
        found = [leaves(one, (*path, f"[name={one['name']}]")) for one in thing]
        return {key: value for one in found for key, value in one.items()}
    return {path: thing}


def _is_named(things: list[Any]) -> bool:
    return all(isinstance(one, dict) and "name" in one for one in things)


def _finalizers(thing: dict[str, Any]) -> list[str]:
    return thing["metadata"].get("finalizers") or []


def _dotted(path: tuple[str, ...]) -> str:
    return "".join(part if part.startswith("[") else f".{part}" for part in path)


def _drop(thing: Any, path: tuple[str, ...]) -> None:
    for part in path[:-1]:
        if isinstance(thing, list):
            name = part.removeprefix("[name=").removesuffix("]")
            thing = next((one for one in thing if one.get("name") == name), {})
        else:
            thing = thing.get(part, {})
    if isinstance(thing, dict):
        thing.pop(path[-1], None)
