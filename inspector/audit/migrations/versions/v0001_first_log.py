"""The first log: bundles, inspections, frames, heatmaps, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "bundles",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("architecture", sa.JSON(), nullable=False),
        sa.Column("preprocessing", sa.JSON()),
        sa.Column("scoring", sa.JSON()),
        sa.Column("threshold", sa.JSON()),
        sa.Column("first_used", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_bundles"),
    )
    op.create_table(
        "inspections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time", sa.String(27), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer()),
        sa.Column("part_id", sa.Integer()),
        sa.Column("verdict", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("score", sa.Float()),
        sa.Column("threshold", sa.Float()),
        sa.Column("bundle", sa.String(64)),
        sa.Column("frame_id", sa.Integer()),
        sa.Column("source", sa.String()),
        sa.Column("latency_ms", sa.Float()),
        sa.Column("stages", sa.JSON()),
        sa.CheckConstraint("verdict IN (1, 2, 3)", name=op.f("ck_inspections_verdict")),
        sa.CheckConstraint("(verdict = 3) = (reason IS NOT NULL)", name=op.f("ck_inspections_reason")),
        sa.CheckConstraint(
            "verdict = 3 OR (score IS NOT NULL AND threshold IS NOT NULL AND bundle IS NOT NULL)",
            name=op.f("ck_inspections_judged"),
        ),
        sa.CheckConstraint("verdict <> 1 OR score <= threshold", name=op.f("ck_inspections_passed")),
        sa.ForeignKeyConstraint(["bundle"], ["bundles.id"], name="fk_inspections_bundle"),
        sa.PrimaryKeyConstraint("id", name="pk_inspections"),
        sqlite_autoincrement=True,
    )
    for column in ("time", "camera", "part_id", "verdict"):
        op.create_index(f"ix_inspections_{column}", "inspections", [column])
    op.create_index(
        "ix_inspections_reason", "inspections", ["reason"], sqlite_where=sa.text("reason IS NOT NULL")
    )
    op.create_table(
        "frames",
        sa.Column("inspection_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("channels", sa.Integer(), nullable=False),
        sa.Column("bit_depth", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_frames_inspection_id"),
        sa.PrimaryKeyConstraint("inspection_id", name="pk_frames"),
    )
    op.create_table(
        "heatmaps",
        sa.Column("inspection_id", sa.Integer(), nullable=False),
        sa.Column("png", sa.LargeBinary(), nullable=False),
        sa.Column("scale", sa.Float(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("region", sa.JSON()),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_heatmaps_inspection_id"),
        sa.PrimaryKeyConstraint("inspection_id", name="pk_heatmaps"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time", sa.String(27), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("camera", sa.String()),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("details", sa.JSON()),
        sa.CheckConstraint("severity IN ('info', 'warning', 'error')", name=op.f("ck_events_severity")),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_time", "events", ["time"])
