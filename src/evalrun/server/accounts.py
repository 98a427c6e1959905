"""People and machines: who they are, what they may do, and by what a request shows who sent it.

Secrets (tokens, sessions, sign-in links) are 256 random bits, kept as SHA-256 and shown once. A role is of a
project or of all (`*`); of several grants the highest counts. A token takes away from its owner's rights.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from evalrun.errors import UserError
from evalrun.server.config import ROLES, Config, GroupRole
from evalrun.server.database import Database, Grant, Link, Session, Token, User
from evalrun.tracking.folder import new_ulid
from evalrun.tracking.store import Store

ALL = "*"
FEEDBACK = "feedback"
"""The role of tokens that may send feedback and nothing else."""

LINK_S = 15 * 60
_USED_S = 60
_TOKEN = re.compile(r"evr_([a-z0-9]{12})_([A-Za-z0-9_-]{43})\Z")


def rank(role: str | None) -> int:
    """How much a role may do; -1 for none."""
    return [*ROLES].index(role) if role in ROLES else -1


@dataclass(frozen=True, slots=True)
class Person:
    """Who sends a request. `actor` is what the audit trail calls them; `grants` are roles by project."""

    id: str
    name: str
    actor: str
    grants: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    is_token: bool = False

    def role(self, project: str) -> str | None:
        """The highest role in a project; None where there is none."""
        found = [self.grants.get(project), self.grants.get(ALL)]
        return max(found, key=rank) if any(found) else None

    def may(self, role: str, project: str) -> bool:
        """Whether they may do in the project what needs this role."""
        own = self.role(project)
        if role == FEEDBACK:
            return own == FEEDBACK or rank(own) >= rank("annotator")
        return rank(own) >= rank(role)


def hashed(secret: str) -> str:
    """What is kept of a secret. It is random, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True, slots=True)
class Accounts:
    """The people of one server."""

    database: Database
    config: Config
    store: Store

    # People

    def person(self, issuer: str, subject: str, name: str = "", groups: Sequence[str] | None = None) -> str:
        """The id of a person, who is entered when first seen. `groups` are those that the login tells."""
        query = sa.select(User).where(User.issuer == issuer, User.subject == subject)
        told = {"name": name or subject}
        if groups is not None:
            told["groups"] = orjson.dumps(list(groups)).decode()
        row = self.database.first(query)
        if row is not None and all(getattr(row, key) == value for key, value in told.items()):
            return str(row.id)

        def change(connection: sa.Connection) -> str:
            row = connection.execute(query).first()
            if row is None:
                made = new_ulid()
                values = {"id": made, "issuer": issuer, "subject": subject, "groups": "[]", **told}
                connection.execute(sa.insert(User).values(**values, created=_now(), disabled=0))
                return made
            connection.execute(sa.update(User).where(User.id == row.id).values(**told))
            return str(row.id)

        return self.database.write(change)

    def find(self, name: str) -> str:
        """The id of a known person by name, subject or id. Raises UserError where it is not one."""
        match = sa.or_(User.name == name, User.subject == name, User.id == name)
        ids = self.database.column(sa.select(User.id).where(match))
        if len(ids) != 1:
            what = f"there is no person '{name[:80]}'" if not ids else f"'{name[:80]}' is {len(ids)} people"
            raise UserError(what, remedy="`evalrun user list` shows them with their ids.")
        return str(ids[0])

    def people(self) -> list[dict[str, Any]]:
        """Everyone with their grants."""

        grants: dict[str, dict[str, str]] = {}
        for row in self.database.all(sa.select(Grant)):
            grants.setdefault(row.person, {})[row.project] = row.role
        return [
            {**row._mapping, "disabled": bool(row.disabled), "grants": grants.get(row.id, {})}
            for row in self.database.all(sa.select(User).order_by(User.name))
        ]

    def grant(self, person: str, project: str, role: str | None) -> None:
        """Give a role in a project or in all (`*`); None takes it away."""
        if role is not None and role not in ROLES:
            raise UserError(f"'{role}' is no role", remedy=f"Roles: {', '.join(ROLES)}.")

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.delete(Grant).where(Grant.person == person, Grant.project == project))
            if role is not None:
                connection.execute(sa.insert(Grant).values(person=person, project=project, role=role))

        self.database.write(change)
        self.store.append_event("grant", {"person": person, "project": project, "role": role or "none"})

    def is_disabled(self, person: str) -> bool:
        """Whether a person was shut out."""
        return any(self.database.column(sa.select(User.disabled).where(User.id == person)))

    def disable(self, person: str, disabled: bool = True) -> None:
        """Shut a person out, with all their sessions; or let them in again."""

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.update(User).where(User.id == person).values(disabled=int(disabled)))
            connection.execute(sa.delete(Session).where(Session.person == person))

        self.database.write(change)
        self.store.append_event("disable" if disabled else "enable", {"person": person})

    # Signing in

    def make_link(self, person: str) -> str:
        """A secret that signs a person in, once, within a quarter of an hour."""
        secret = secrets.token_urlsafe(32)
        values = {"hash": hashed(secret), "person": person, "expires": _now() + LINK_S}

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.delete(Link).where(Link.expires < _now()))
            connection.execute(sa.insert(Link).values(**values))

        self.database.write(change)
        return secret

    def redeem(self, secret: str) -> str | None:
        """The person whom a link signs in; None for one that was used, ran out or never was."""

        def change(connection: sa.Connection) -> str | None:
            match = Link.hash == hashed(secret)
            row = connection.execute(sa.select(Link).where(match)).first()
            # Of two who come with it at once, one takes the row away.
            gone = connection.execute(sa.delete(Link).where(match)).rowcount
            return str(row.person) if row is not None and gone and row.expires >= _now() else None

        return self.database.write(change)

    def sign_in(self, person: str, method: str) -> str:
        """A new session; returns its secret."""
        secret, now = secrets.token_urlsafe(32), _now()
        values = {"hash": hashed(secret), "person": person, "method": method, "created": now, "seen": now}
        self.database.do(sa.insert(Session).values(**values))
        self.store.append_event("sign_in", {"person": person, "method": method})
        return secret

    def sign_out(self, person: Person, *, everywhere: bool = False) -> None:
        """End the session, or all of the person."""
        which = Session.person == person.id if everywhere else Session.hash == person.session
        self.database.do(sa.delete(Session).where(which))
        self.store.append_event("sign_out", {"person": person.id, "everywhere": everywhere})

    def by_session(self, secret: str) -> Person | None:
        """Whose session it is; None where it ended or ran out."""
        key, now = hashed(secret), _now()
        limits = self.config.limits
        query = sa.select(Session, User.name, User.groups, User.disabled).join(
            User, Session.person == User.id
        )
        row = self.database.first(query.where(Session.hash == key))
        if row is None or row.disabled:
            return None
        if now - row.seen > limits.session_idle_h * 3600 or now - row.created > limits.session_days * 86400:
            return None
        if now - row.seen > _USED_S:
            self.database.do(sa.update(Session).where(Session.hash == key).values(seen=now))
        return self.known(row.person, row.name, row.method, orjson.loads(row.groups), key)

    def known(self, person: str, name: str, method: str, groups: Sequence[str], key: str = "") -> Person:
        """A person with all that they may do."""
        rows = self.database.all(sa.select(Grant).where(Grant.person == person))
        found = [(row.project, row.role) for row in rows]
        for group in groups:
            given = self.config.roles.get(group)
            if isinstance(given, GroupRole):
                found += [(project, given.role) for project in given.projects]
            elif given is not None:
                found.append((ALL, given))
        if self.config.default_role != "none":
            found.append((ALL, self.config.default_role))
        grants: dict[str, str] = {}
        for project, role in found:
            grants[project] = max(role, grants.get(project, ""), key=rank)
        return Person(person, name, f"{name} ({method})", grants, key)

    # Tokens

    def make_token(
        self, name: str, role: str, project: str, days: int, *, made_by: str, owner: str | None = None
    ) -> str:
        """A token for a machine; returns its secret, which is shown once."""
        if role not in (*ROLES, FEEDBACK):
            raise UserError(f"'{role}' is no role", remedy=f"Roles: {', '.join(ROLES)}, {FEEDBACK}.")
        if not name.strip() or len(name) > 100 or not name.isprintable():
            raise UserError("a token has a name of at most 100 printable characters")
        if not 1 <= days <= 3650:
            raise UserError("a token runs out after 1 to 3650 days")
        short, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        values = {"id": short, "hash": hashed(secret), "name": name, "made_by": made_by, "owner": owner}
        until = _now() + days * 86400
        self.database.do(sa.insert(Token).values(**values, role=role, project=project, expires=until))
        detail = {"id": short, "name": name, "role": role, "project": project, "days": days}
        self.store.append_event("make_token", detail)
        return f"evr_{short}_{secret}"

    def revoke_token(self, name: str) -> None:
        """End a token, by its id or name. Raises UserError where there is none that counts."""
        match = sa.and_(sa.or_(Token.id == name, Token.name == name), Token.revoked.is_(None))
        if not self.database.do(sa.update(Token).where(match).values(revoked=_now())):
            raise UserError(f"there is no token '{name[:80]}'", remedy="`evalrun token list` shows them.")
        self.store.append_event("revoke_token", {"token": name})

    def tokens(self) -> list[dict[str, Any]]:
        """All tokens, without what was kept of their secrets."""
        columns = [column for column in Token.__table__.c if column.name != "hash"]
        return [dict(row._mapping) for row in self.database.all(sa.select(*columns).order_by(Token.name))]

    def by_token(self, text: str) -> Person | None:
        """Whose token it is; None for one that is unknown, revoked, or ran out."""
        parts = _TOKEN.match(text)
        if parts is None:
            return None
        row = self.database.first(sa.select(Token).where(Token.id == parts[1]))
        kept = row.hash if row is not None else "0" * 64
        if not hmac.compare_digest(kept, hashed(parts[2])) or row is None:
            return None
        now = _now()
        if row.revoked is not None or row.expires < now:
            return None
        grants = {row.project: str(row.role)}
        if row.owner is not None and (grants := self._within(row, grants)) == {}:
            return None
        if now - (row.last_used or 0) > _USED_S:
            self.database.do(sa.update(Token).where(Token.id == row.id).values(last_used=now))
        return Person(f"token:{row.id}", row.name, f"{row.name} (token)", grants, is_token=True)

    def _within(self, row: Any, grants: dict[str, str]) -> dict[str, str]:
        """A token's rights as far as its owner has them still."""
        owner = self.database.first(sa.select(User).where(User.id == row.owner, User.disabled == 0))
        if owner is None:
            return {}
        person = self.known(owner.id, owner.name, "token", orjson.loads(owner.groups))
        own = person.role(row.project)
        if row.role == FEEDBACK:
            return grants if rank(own) >= rank("annotator") else {}
        return {row.project: min(row.role, own or "", key=rank)} if rank(own) >= 0 else {}
