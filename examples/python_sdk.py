"""Chats with a running Keyturn through the openai SDK: sync, with the stream helper, and async.

    python server.py &
    python examples/python_sdk.py --url http://127.0.0.1:8000

`KeyturnAuth` is all that it takes. The key is a placeholder, said out loud: an SDK that is told
none takes one from the environment.
"""

import argparse
import asyncio
import sys

import httpx2
from openai import APIConnectionError, APIError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from keyturn_auth import KeyturnAuth


def converse(url: str, first_words: str) -> None:
    """Three turns of one conversation, streamed; the last one by the SDK's helper."""
    with OpenAI(
        base_url=url, api_key="keyturn", http_client=httpx2.Client(auth=KeyturnAuth(url))
    ) as client:
        model = client.models.list().data[0].id
        messages: list[ChatCompletionMessageParam] = []
        for words, way in ((first_words, show), ("Go on.", show), ("Thank you!", show_by_helper)):
            print(f"\n> {words}")
            messages.append({"role": "user", "content": words})
            messages.append({"role": "assistant", "content": way(client, model, messages)})


def show(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    """Print an answer while it comes, and return it whole."""
    answer = ""
    with client.chat.completions.create(model=model, messages=messages, stream=True) as stream:
        for chunk in stream:
            piece = chunk.choices[0].delta.content or ""
            answer += piece
            print(piece, end="", flush=True)
    print()
    return answer


def show_by_helper(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    """The same; the helper puts the pieces together."""
    with client.chat.completions.stream(model=model, messages=messages) as stream:
        for event in stream:
            if event.type == "content.delta":
                print(event.delta, end="", flush=True)
    print()
    return stream.get_final_completion().choices[0].message.content or ""


async def converse_async(url: str, *questions: str) -> None:
    """Questions asked at once: their turns follow each other, their answers overlap."""
    async with AsyncOpenAI(
        base_url=url, api_key="keyturn", http_client=httpx2.AsyncClient(auth=KeyturnAuth(url))
    ) as client:
        model = (await client.models.list()).data[0].id

        async def ask(question: str) -> str | None:
            completion = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}]
            )
            return completion.choices[0].message.content

        answers = await asyncio.gather(*map(ask, questions))
        for question, answer in zip(questions, answers, strict=True):
            print(f"\n> {question}\n{answer}")


def main() -> int:
    """Read the arguments, chat, and say in a sentence what went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where Keyturn is")
    parser.add_argument("--message", default="Good morning! Who are you?", help="the first words")
    said = parser.parse_args()
    url = said.url.rstrip("/").removesuffix("/v1") + "/v1"
    try:
        converse(url, said.message)
        asyncio.run(converse_async(url, "What is a key?", "What is a turn?"))
    except APIConnectionError:
        sys.exit(f"{said.url} cannot be reached, or fell silent: is it at this --url?")
    except APIError as refused:
        sys.exit(f"refused, or broken off: {refused.message}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
