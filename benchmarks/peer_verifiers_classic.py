"""B1's task in the `ToolEnv` of verifiers 0.1.14, which 0.4 no longer has; see `peer_turns`.

Within the measured time: `ToolEnv.run_rollout` (state, stop conditions, tool call from its JSON, one async reward and
the tool metrics that `ToolEnv` brings) and the output with its trajectory of messages.

Left out, in verifiers' favour: the provider's SDK and server and the conversion of messages to and from it, whose place
a client takes that answers at once; groups and progress bars (`generate`); and tokens: nothing is rendered or masked,
what is called comes parsed. agentrl's figure has it all: chat rendered to token ids, ids parsed to calls, arguments
validated, ids, masks and log-probabilities recorded. Given prepared ids, masks and log-probabilities with each answer,
as in a training run, this peer takes 1.4 times as long (354 us a turn instead of 246, on two cores).
"""

from __future__ import annotations

import asyncio
from typing import Any

import verifiers as vf
from datasets import Dataset
from peer_turns import ANSWER, ARGUMENTS, TURNS, gathered, serve
from verifiers.clients import Client
from verifiers.types import Response, ResponseMessage, ToolCall

ROW: dict[str, Any] = {"prompt": [{"role": "user", "content": "go"}], "example_id": 0, "answer": ""}


def response(why: Any, content: str | None, calls: list[ToolCall] | None) -> Response:
    message = ResponseMessage(content=content, finish_reason=why, is_truncated=False, tool_calls=calls)
    return Response(id="1", created=0, model="none", message=message)


CALL = response("tool_calls", None, [ToolCall(id="1", name="echo", arguments=ARGUMENTS)])
BYE = response("stop", ANSWER, None)


class Instant(Client):
    """Answers at once."""

    setup_client = to_native_tool = to_native_prompt = get_native_response = None
    raise_from_native_response = from_native_response = close = None

    async def get_response(self, prompt: list[Any], *_: Any, **__: Any) -> Response:
        turn = sum(message.role == "assistant" for message in prompt)
        return BYE if turn == TURNS - 1 else CALL


async def echo(text: str) -> str:
    """Say it back.

    Args:
        text: What to say.
    """
    return text


async def done() -> float:
    return 1.0


async def main() -> None:
    env = vf.ToolEnv(tools=[echo], max_turns=TURNS, dataset=Dataset.from_list([ROW]), rubric=vf.Rubric(funcs=[done]))
    client = Instant(None)

    async def one() -> None:
        played = await env.run_rollout(ROW, client, "none", {}, state_columns=["trajectory"])
        assert played["reward"] == 1.0, played
        assert len(played["trajectory"]) == TURNS, played

    await serve(lambda at_once: gathered(one, at_once))


if __name__ == "__main__":
    asyncio.run(main())
