"""Serve tools over the Model Context Protocol: list them, check arguments, run them in threads, and report progress and errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp.types import Tool as ListedTool
from pydantic import TypeAdapter

from fewframes.core.settings import settings_from
from fewframes.core.version import __version__
from fewframes.errors import ConfigError, FewframesError, nearest
from fewframes.serve.mcp.tools import Tool, Values
from fewframes.serve.service import Service
from fewframes.serve.tasks import ProgressLines, gone, in_a_line, in_time

INSTRUCTIONS = """Recognise what happens in videos on this machine. Call `about` first: it says which actions the models know and
which folders can be read. `predict` names the action of a short clip, `timeline` finds actions in a long video."""


def create_server(tools: Mapping[str, Tool], service: Service) -> Server[Any]:
    """Create the server of these tools, by name. The service limits how many calls are worked on, and how long each may take."""
    listed = [_listed(name, tool) for name, tool in tools.items()]

    async def list_tools(_: ServerRequestContext[Any, Any], __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        try:
            if params.name not in tools:
                raise ConfigError(f"no tool {params.name!r}; {nearest(params.name, tools)}")
            tool = tools[params.name]
            arguments: Any = settings_from(tool.arguments, params.arguments or {}, params.name)
            values = await _called(tool, arguments, service, context)
        except FewframesError as error:
            return CallToolResult(content=[TextContent(text=in_a_line(error))], is_error=True)
        text = json.dumps(values, ensure_ascii=False)
        return CallToolResult(content=[TextContent(text=text)], structured_content=values)

    return Server(
        "fewframes",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def run_on_stdio(server: Server[Any]) -> None:
    """Serve one client on standard input and output, until it closes its end."""
    async with stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


def _listed(name: str, tool: Tool) -> ListedTool:
    """Return what clients are told of a tool."""
    return ListedTool(
        name=name,
        description=" ".join(tool.words.split()),
        input_schema=TypeAdapter(tool.arguments).json_schema(),
        annotations=ToolAnnotations(
            read_only_hint=not tool.writes,
            destructive_hint=tool.writes,
            idempotent_hint=not tool.writes,
            open_world_hint=False,
        ),
    )


async def _called(tool: Tool, arguments: Any, service: Service, context: ServerRequestContext[Any, Any]) -> Values:
    """Run a tool in a thread, and report its progress meanwhile. Raises FewframesError."""
    task, news = service.enter(), ProgressLines(asyncio.get_running_loop())
    try:
        service.take_slot(task)
        future = service.start(partial(tool.run, arguments, task, news.report), task)
    except FewframesError:
        service.leave(task)
        raise

    # The slot is given back when the thread is done, not when the client has its answer or has cancelled the call.
    def on_done(_: Future[Values]) -> None:
        service.leave(task)
        news.end()

    future.add_done_callback(on_done)
    last = -1  # the protocol asks for progress that increases
    try:
        while True:
            async with in_time(task):
                progress = await news.next()
            if progress is None:
                return future.result()
            if progress[0] > last:
                last = progress[0]
                await context.session.report_progress(last, progress[1] or None)
    finally:
        task.end(gone())
        future.cancel()
