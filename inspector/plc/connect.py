"""What [plc] of station.toml says, as the link and the simulator want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.plc.registers import Order

if TYPE_CHECKING:
    from inspector.plc.link import Link
    from inspector.settings import Plc


def register_order(plc: Plc) -> Order:
    """How 32-bit values lie in the registers."""
    return Order(plc.word_order, plc.byte_order)


def open_link(plc: Plc) -> Link:
    """The connection; it is made at its first use."""
    from inspector.plc.link import Link  # here, for the simulator needs no client

    return Link(
        plc.host,
        plc.port,
        device_id=plc.device_id,
        timeout_s=plc.timeout_ms / 1000,
        order=register_order(plc),
    )
