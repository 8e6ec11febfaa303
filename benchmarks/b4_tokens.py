"""B4: what it costs to turn a growing chat into tokens: ours beside rendering the whole chat again in each turn.

A chat of N turns; each turn calls a tool (about 25 tokens) and is answered (about 60 tokens). Ours asks the renderer
for what the environment adds; the peer is transformers' `apply_chat_template` on all messages, tokens included, which
is what a loop over an OpenAI-like interface does. Both use one tokenizer (byte-pair merges learnt here) and the ChatML
template. Figures are processor time a turn.

Floor: 1 % of the time that sampling takes: at 470 tokens a second, which one stream of the CPU build of vLLM gave, the
25 tokens of a turn take 53 ms.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from report import Row, arguments, repeat, show
from transformers import AutoTokenizer

from agentrl import AssistantMessage, ToolCall
from agentrl.messages import Message, SystemMessage, ToolMessage, UserMessage, to_dicts
from agentrl.render.parsers.hermes import HermesParser
from agentrl.render.renderer import Renderer
from agentrl.render.tiny_tokenizer import train_tokenizer
from agentrl.render.tokenizer import HFTokenizer

SCHEMA = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Look an order up.",
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "string", "description": "Such as #W0001."}},
            "required": ["order_id"],
        },
    },
}
OPENING: list[Message] = [
    SystemMessage(content="You are a shop's assistant."),
    UserMessage(content="Which of my orders has not been sent yet? I ordered a lamp, a chair and two books."),
]
SAMPLING_S = 25 / 470  # of one turn


def turn(number: int) -> tuple[AssistantMessage, ToolMessage]:
    call = ToolCall(id=f"call_{number}", name="find_order", arguments={"order_id": f"#W{number:04}"})
    told = {"id": f"#W{number:04}", "items": ["lamp", "chair"], "status": "sent", "days": number, "city": "Cork"}
    return AssistantMessage(tool_calls=(call,)), ToolMessage(
        content=json.dumps(told), name="find_order", call_id=call.id
    )


def main() -> None:
    options = arguments(__doc__ or "")
    texts = [message.model_dump_json() for n in range(50) for message in turn(n)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_tokenizer([*texts, OPENING[0].content, OPENING[1].content], 400, folder)
        renderer = Renderer(HFTokenizer(folder), HermesParser())
        peer = AutoTokenizer.from_pretrained(folder)
    for turns in (8, 32, 128):
        played = [turn(number) for number in range(turns)]
        sampled = [renderer.encode_action(action) for action, _ in played]

        def ours(played: list = played, sampled: list = sampled) -> float:
            began = time.process_time()
            chat = renderer.begin(OPENING, [SCHEMA])
            length = len(chat.prompt)
            for ids, (action, answer) in zip(sampled, played, strict=True):
                extension = chat.extend(ids, action, [answer])
                assert extension.rendered == "exact"
                length += len(ids) + len(extension.token_ids)
            spent = 1e6 * (time.process_time() - began) / len(played)
            assert length == len(whole(played))
            return spent

        def whole(played: list) -> list[int]:
            messages = to_dicts([*OPENING, *(message for pair in played for message in pair)])
            ids: list[int] = peer.apply_chat_template(
                messages, tools=[SCHEMA], add_generation_prompt=True, return_dict=False
            )
            return ids

        def again(played: list = played) -> float:
            began = time.process_time()
            for done in range(len(played) + 1):
                whole(played[:done])
            return 1e6 * (time.process_time() - began) / len(played)

        times = 5 if options.quick else 9
        (median, p95), (theirs, _) = repeat(ours, times), repeat(again, 3 if turns > 32 else times)
        floor = 0.01 * 1e6 * SAMPLING_S
        name = "the whole chat each turn"
        rows.append(Row(f"{turns} turns", "us/turn", median, p95, peer=theirs, peer_name=name, floor=floor))
    show("B4 tokens of a growing chat", rows, options.json)


if __name__ == "__main__":
    main()
