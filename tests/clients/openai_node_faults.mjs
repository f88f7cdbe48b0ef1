// openai-node while a provider is at fault: what it throws or returns, how much it had got, how often it asked.
//
// WEIR_URL, WEIR_KEY, and WEIR_CASES: a JSON list of {"model", "stream"}. Prints a JSON line for each.
import OpenAI from "openai";

const asked = [];
// As everybody makes it, with its own tries; only the requests are counted.
const client = new OpenAI({
  baseURL: process.env.WEIR_URL,
  apiKey: process.env.WEIR_KEY,
  fetch: (url, init) => {
    asked.push(new Headers(init.headers).get("x-stainless-retry-count"));
    return fetch(url, init);
  },
});

for (const one of JSON.parse(process.env.WEIR_CASES)) {
  asked.length = 0;
  const said = { text: "", finish: null, raised: null, status: null, message: null };
  const messages = [{ role: "user", content: "Say the lines of this case." }];
  try {
    const answer = await client.chat.completions.create({ model: one.model, messages, stream: one.stream });
    if (one.stream) {
      for await (const chunk of answer) {
        said.text += chunk.choices[0]?.delta?.content ?? "";
        said.finish = chunk.choices[0]?.finish_reason ?? said.finish;
      }
    } else {
      said.text = answer.choices[0].message.content;
      said.finish = answer.choices[0].finish_reason;
    }
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    said.raised = error.constructor.name;
    said.status = error.status ?? null;
    said.message = error.error?.message ?? error.message;
  }
  console.log(JSON.stringify({ ...one, ...said, asked }));
}
