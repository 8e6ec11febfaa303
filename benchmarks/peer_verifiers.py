"""B1's task in verifiers 0.4 (`verifiers.v1`), in the lightest harness that its contract allows; see `peer_turns`.

Within the measured time: `Agent.run` (setup, trace, scoring by one async reward), a harness that runs its loop in this
process and calls the tool as a plain function, and every model call through verifiers' own interception server over
one kept-alive loopback connection an episode, as the contract of a harness demands. One box is lent to all episodes.

Left out, in verifiers' favour: a process an episode, which every harness that ships starts; a tool server (MCP), which
its tools are otherwise; the provider's SDK and server, whose place a client takes that answers at once with prepared
messages; and tokens: nothing is rendered, parsed or masked, the trace holds messages alone. agentrl's figure has it
all: chat rendered to token ids, ids parsed to calls, arguments validated, ids, masks and log-probabilities recorded.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import verifiers.v1 as vf
from peer_turns import ANSWER, ARGUMENTS, TURNS, gathered, serve
from verifiers.v1.clients import Client
from verifiers.v1.interception import server
from verifiers.v1.runtimes import ProgramResult
from verifiers.v1.types import AssistantMessage, Response, ToolCall

TEXT = {"type": "string", "description": "What to say."}
PARAMETERS = {"type": "object", "properties": {"text": TEXT}, "required": ["text"]}
TOOLS = [{"type": "function", "function": {"name": "echo", "description": "Say it back.", "parameters": PARAMETERS}}]
WIRE_CALL = {"id": "1", "type": "function", "function": {"name": "echo", "arguments": ARGUMENTS}}


def response(why: Any, message: AssistantMessage, wire: dict[str, Any]) -> Response:
    raw = {"choices": [{"index": 0, "finish_reason": why, "message": {"role": "assistant", **wire}}]}
    raw |= {"id": "1", "object": "chat.completion", "created": 0, "model": "none"}
    return Response(id="1", created=0, model="none", message=message, finish_reason=why, raw=raw)


CALLED = AssistantMessage(tool_calls=[ToolCall(id="1", name="echo", arguments=ARGUMENTS)])
CALL = response("tool_calls", CALLED, {"content": None, "tool_calls": [WIRE_CALL]})
BYE = response("stop", AssistantMessage(content=ANSWER), {"content": ANSWER})


class Instant(Client):
    """Answers at once."""

    async def get_response(self, dialect: Any, body: dict[str, Any], *_: Any, **__: Any) -> Response:
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        return BYE if turn == TURNS - 1 else CALL


class InProcess(vf.Harness[vf.HarnessConfig]):
    """A chat loop in this process."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = NEEDS_CONTAINER = False
    http: aiohttp.ClientSession

    async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data) -> ProgramResult:
        messages: list[dict[str, Any]] = [{"role": "user", "content": data.prompt}]
        headers = {"Authorization": f"Bearer {secret}"}
        while True:
            body = {"model": ctx.model, "messages": messages, "tools": TOOLS}
            async with self.http.post(f"{endpoint}/chat/completions", json=body, headers=headers) as answer:
                said = (await answer.json())["choices"][0]["message"]
            messages.append(said)
            for call in said.get("tool_calls") or ():
                content = await echo(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})
            if messages[-1] is said:
                return ProgramResult(exit_code=0, stdout="", stderr="")


async def echo(text: str) -> str:
    return text


class Echo(vf.Task):
    @vf.reward
    async def done(self, trace: vf.Trace) -> float:
        return 1.0


async def main() -> None:
    server.resolve_client = lambda config: Instant()
    client = vf.EvalClientConfig(base_url="http://localhost", api_key_var="NONE")
    config = vf.AgentConfig(model="none", client=client, harness={"id": "null"}, runtime={"type": "subprocess"})
    connector = aiohttp.TCPConnector(limit=0)
    async with vf.Agent(config) as agent, agent.provision() as box, aiohttp.ClientSession(connector=connector) as http:
        agent.harness = InProcess(agent.harness.config)
        agent.harness.http = http

        async def one() -> None:
            trace = await agent.run(Echo(vf.TaskData(prompt="go")), runtime=box)
            assert trace.ok, trace.errors
            assert (trace.reward, trace.num_turns) == (1.0, TURNS), trace

        await serve(lambda at_once: gathered(one, at_once))


if __name__ == "__main__":
    asyncio.run(main())
