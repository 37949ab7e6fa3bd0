from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from inspector.audit import AuditLog, database
from inspector.audit.labels import add_label
from inspector.audit.records import Measures
from inspector.audit.schema import REVISION, Base
from inspector.errors import LogError
from tests.inspector.audit.conftest import passed, register

ADDED = r"\n|, (?=[a-z_]+ [A-Z])"  # a column that a later migration adds stands on the line of the one before


def schema(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return rows


def test_migrations_and_models_agree(path: Path) -> None:
    AuditLog.open(path).close()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_constraints_that_alembic_does_not_compare_agree(path: Path, tmp_path: Path) -> None:
    AuditLog.open(path).close()
    engine = create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    Base.metadata.create_all(engine)
    engine.dispose()

    def parts(path: Path) -> dict[str, list[str]]:
        lines = {
            name: [line.strip(" ,\t") for line in re.split(ADDED, sql)] for name, sql in schema(path) if sql
        }
        return {
            name: sorted(x for x in found if x not in "()")
            for name, found in lines.items()
            if name != "alembic_version"
        }

    assert parts(path) == parts(tmp_path / "models.db")
    assert any("AUTOINCREMENT" in line for line in parts(path)["inspections"])


def test_migrating_twice_changes_nothing(path: Path) -> None:
    with AuditLog.open(path) as log:
        register(log)
        log.commit(passed())
    before = schema(path)
    with database.open_for_writing(path, "FULL", 1.0) as connection, connection.begin():
        database._upgrade(connection)
    with AuditLog.open(path) as log:
        assert len(log.inspections()) == 1
    assert schema(path) == before


def test_the_newest_revision_is_the_one_the_code_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


@pytest.mark.parametrize("by", ["the daemon", "a label"])
def test_an_older_log_is_brought_up_to_date_and_loses_nothing(path: Path, by: str) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
    with create_engine(f"sqlite:///{path}").begin() as connection:
        database._upgrade(connection, "0001")
    with create_engine(f"sqlite:///{path}").begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO inspections (time, camera, recipe, verdict, reason) "
            "VALUES ('2026-05-09T12:00:00.000000Z', 'top', 'demo', 3, 'late')"
        )
    if by == "a label":
        add_label(path, 1, "normal")
    else:
        AuditLog.open(path).close()
    with AuditLog.open(path, readonly=True) as log:
        assert [(row.reason, row.label) for row in log.inspections()] == [
            ("late", "normal" if by == "a label" else None)
        ]


def test_measures_of_an_older_log_are_kept_and_what_it_has_not_measured_is_none(path: Path) -> None:
    path.parent.mkdir()
    with create_engine(f"sqlite:///{path}").begin() as connection:
        database._upgrade(connection, "0002")
        connection.exec_driver_sql(
            "INSERT INTO inspections (time, camera, recipe, verdict, reason) "
            "VALUES ('2026-05-09T12:00:00.000000Z', 'top', 'demo', 3, 'late')"
        )
        connection.exec_driver_sql("INSERT INTO measures VALUES (1, 0.5, 0.01)")
    AuditLog.open(path).close()
    with AuditLog.open(path, readonly=True) as log:
        assert log.get(1).measures == Measures(0.5, 0.01, None)


def test_an_older_log_is_not_read_half(path: Path) -> None:
    AuditLog.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.commit()
    connection.close()
    with pytest.raises(LogError, match=r"schema 0000, this version reads .*`inspector run`"):
        AuditLog.open(path, readonly=True)
