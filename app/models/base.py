"""What all tables share: keys, times, enums by value, named constraints, and the lease of queued work."""

import secrets
import time
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, dataclass_transform
from uuid import UUID

from sqlalchemy import JSON, DateTime, Dialect, MetaData, TypeDecorator
from sqlalchemy import Enum as EnumColumn
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass, mapped_column, relationship

_RANDOM_BITS = 74


def new_id() -> UUID:
    """A time-ordered random key (UUID version 7, RFC 9562): new rows stay together in the index."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(_RANDOM_BITS)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & ((1 << 62) - 1))


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment in UTC; SQLite would forget the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC, and refuse times that do not say where they are."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = f"{value!r} has no time zone"
            raise ValueError(msg)
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


def _enum_values(enum: type[Enum]) -> list[str]:
    return [str(member.value) for member in enum]


# Enums are stored by value in a VARCHAR with a CHECK: readable in SQL, and a new member is a plain migration.
_ENUM = EnumColumn(
    StrEnum, values_callable=_enum_values, native_enum=False, create_constraint=True, length=40, validate_strings=True
)


# SQLAlchemy hands kw_only down to every table; the decorator tells type checkers so.
@dataclass_transform(kw_only_default=True, field_specifiers=(mapped_column, relationship))
class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """The base of all tables. Rows are dataclasses, so that type checkers see a missing or misspelt column."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this name from the class
        datetime: UtcDateTime(),
        StrEnum: _ENUM,
        dict[str, Any]: JSON(),
        # Without none_as_null, setting None would store the JSON text 'null'.
        list[int]: JSON(none_as_null=True),
        list[str]: JSON(),
        list[dict[str, Any]]: JSON(),
    }
