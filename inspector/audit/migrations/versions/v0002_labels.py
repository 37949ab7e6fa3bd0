"""Labels by people, append-only, and measures of light and lens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "measures",
        sa.Column("inspection_id", sa.Integer(), nullable=False),
        sa.Column("brightness", sa.Float(), nullable=False),
        sa.Column("sharpness", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_measures_inspection_id"),
        sa.PrimaryKeyConstraint("inspection_id", name="pk_measures"),
    )
    op.create_table(
        "labels",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("inspection_id", sa.Integer(), nullable=False),
        sa.Column("time", sa.String(27), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("by", sa.String()),
        sa.Column("note", sa.String()),
        sa.CheckConstraint("label IN ('normal', 'defect')", name=op.f("ck_labels_label")),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_labels_inspection_id"),
        sa.PrimaryKeyConstraint("id", name="pk_labels"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_labels_inspection_id", "labels", ["inspection_id"])
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER labels_no_{change.lower()} BEFORE {change} ON labels "
            "BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END"
        )
