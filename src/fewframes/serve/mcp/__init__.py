"""Answer agents over the Model Context Protocol. Needs the extra `mcp`. Writes to standard output only what the protocol says."""

from __future__ import annotations
