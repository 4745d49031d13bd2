"""What `friendo up` says when everything runs: the addresses, and two ways to try it that can be copied."""

from gateway.local.parts import MODEL

# The README shows this text too; a test runs it word for word. The small model is asked for something that it
# can do: it greets by name once the name was said, and the second request carries no name.
SDK_EXAMPLE = """\
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
for text in ("Hello, my name is Alice.", "Say hello to me by name."):
    answer = client.chat.completions.create(model="{model}", temperature=0, max_tokens=64, extra_body={{"conversation": "demo"}}, messages=[{{"role": "user", "content": text}}])
    print(answer.choices[0].message.content)
"""  # noqa: E501 - five lines to paste, as promised

CURL_EXAMPLE = """\
curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{{"model": "{model}", "conversation": "demo", "max_tokens": 64, "temperature": 0, "messages": [{{"role": "user", "content": "Say hello to me by name."}}]}}'
"""  # noqa: E501 - one line to paste


def sdk_example(url: str) -> str:
    """Five lines with the OpenAI SDK: the second answer uses what was said in the first request."""
    return SDK_EXAMPLE.format(url=url, model=MODEL)


def curl_example(url: str) -> str:
    """One more message to the same conversation, from the shell."""
    return CURL_EXAMPLE.format(url=url, model=MODEL)
