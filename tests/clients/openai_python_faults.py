"""openai-python while a provider is at fault: what it raises or returns, how much it had got, how often it asked.

WEIR_URL, WEIR_KEY, and WEIR_CASES: a JSON list of {"model", "stream"}. Prints a JSON line for each.
"""
import json
import os

import httpx
import openai
from openai import OpenAI

asked = []
# As everybody makes it, with its own tries; only the requests are counted.
client = OpenAI(base_url=os.environ["WEIR_URL"], api_key=os.environ["WEIR_KEY"],
                http_client=httpx.Client(event_hooks={"request": [lambda r: asked.append(r.headers.get("x-stainless-retry-count"))]}))

for case in json.loads(os.environ["WEIR_CASES"]):
    asked.clear()
    said = {"text": "", "finish": None, "raised": None, "status": None, "message": None}
    messages = [{"role": "user", "content": "Say the lines of this case."}]
    try:
        answer = client.chat.completions.create(model=case["model"], messages=messages, stream=case["stream"])
        if case["stream"]:
            for chunk in answer:
                if chunk.choices:
                    said["text"] += chunk.choices[0].delta.content or ""
                    said["finish"] = chunk.choices[0].finish_reason or said["finish"]
        else:
            said["text"] = answer.choices[0].message.content
            said["finish"] = answer.choices[0].finish_reason
    except openai.APIError as error:
        said["raised"] = type(error).__name__
        said["status"] = getattr(error, "status_code", None)
        said["message"] = (error.body or {}).get("message", error.message) if isinstance(error.body, dict) else error.message
    print(json.dumps({**case, **said, "asked": asked}), flush=True)
