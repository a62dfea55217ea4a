"use strict";
// The secret came with the address; from now on a cookie carries it, and the address is clean.
if (location.search) history.replaceState(null, "", location.pathname);

// What is said where the server is gone; a page in another language has words of its own.
let gone = "pronk does not answer any more; was it ended in the terminal?";

// The element of an id.
const at = (id) => document.getElementById(id);

// What the server answers at a path: a GET, or a POST where there is a body. Throws an Error with its message.
async function ask(path, body) {
  const answer = await sent(path, body);
  return answer.json();
}

// Calls `each` with every object that the server sends at a path, as it comes. `signal` of an AbortController ends it.
async function listen(path, body, each, signal) {
  const answer = await sent(path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const item = JSON.parse(line);
      if (item && item.error) throw new Error(item.error);
      each(item);
    }
  }
}

async function sent(path, body, signal) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { ...(body === undefined ? {} : post), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(gone);
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text.trim();
  try { message = JSON.parse(text).error || message; } catch { /* a line of text */ }
  throw new Error(message);
}
