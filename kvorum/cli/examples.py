"""Examples at the end of a command's help."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """An epilog for ``@click.command(epilog=…)``: whole command lines, shown as they are. A test parses
    them."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
