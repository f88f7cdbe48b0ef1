"""openai-python against the models inside the gateway, with the plan that is shipped: a chat, a stream, and a list of thirty
paragraphs to embed, each of which fits by itself.

WEIR_URL, WEIR_KEY; WEIR_LOCAL_MODEL and WEIR_EMBEDDING_MODEL: the targets inside.
"""
import os
import sys

import openai
from openai import OpenAI

MODEL, EMBEDDING = os.environ["WEIR_LOCAL_MODEL"], os.environ["WEIR_EMBEDDING_MODEL"]
client = OpenAI(base_url=os.environ["WEIR_URL"], api_key=os.environ["WEIR_KEY"], max_retries=0, timeout=120)
question = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
failed = []


def case(function):
    try:
        function()
        print("ok  ", function.__name__)
    except Exception as error:  # a test that dies is a test that failed
        failed.append(function.__name__)
        print("FAIL", function.__name__, type(error).__name__, str(error)[:300])


def paragraph(number):
    return (f"Lock {number} lies where the river leaves the town. Its keeper's house is lived in still, and boats of up to "
            f"{number + 10} tons go through from April until the first ice. In winter the gates stand open, and what the "
            "water carries goes straight down to the weir by the mill, where it is taken out by hand and sold as firewood.")


@case
def chat():
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=question, max_tokens=24, temperature=0)
    answer = raw.parse()
    assert raw.headers.get("x-weir-model") == MODEL, raw.headers
    assert answer.choices[0].message.content, "no content"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


@case
def stream():
    text, finish, usage = "", None, None
    for chunk in client.chat.completions.create(model=MODEL, messages=question, max_tokens=24, stream=True,
                                                stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert text and finish in ("stop", "length"), (text, finish)
    assert usage.completion_tokens > 0


@case
def embeddings_of_thirty_paragraphs():
    texts = [paragraph(number) for number in range(30)]
    many = client.embeddings.create(model=EMBEDDING, input=texts)
    assert [item.index for item in many.data] == list(range(30))
    assert all(len(item.embedding) == 384 for item in many.data)
    assert many.usage.prompt_tokens > 30 * 50, many.usage
    alone = client.embeddings.create(model=EMBEDDING, input=texts[17], encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(many.data[17].embedding, alone)) < 1e-3


@case
def a_text_that_is_too_long_to_embed():
    try:
        client.embeddings.create(model=EMBEDDING, input=[paragraph(1), paragraph(2) * 20])
    except openai.BadRequestError as error:
        assert (error.code, error.param) == ("context_length_exceeded", "input"), error
        return
    raise AssertionError("no BadRequestError")


sys.exit(1 if failed else 0)
