"""The grey of a frame's brightest places."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("measures", sa.Column("highlight", sa.Float()))
