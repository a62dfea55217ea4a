
// --- the chat ----------------------------------------------------------------------------------
// What models and people write goes into the page as text (textContent), never as markup.

const NEAR = 40; // pixels from the end of the page that count as its end
let models = [];
let turns = 0;
let busy = true; // until it is known what was said

function made(tag, name, text) {
  const element = document.createElement(tag);
  element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function addTurn(turn) {
  const article = made("article", "turn");
  article.append(made("p", "question said", turn.question));
  const replies = made("div", "replies");
  turn.replies.forEach((reply, place) => {
    const section = made("section", "reply");
    section.append(made("h2", "said", models[place]), made("p", "said"), made("p", "note quiet"));
    replies.append(section);
    grow(section, reply);
  });
  article.append(replies);
  at("talk").append(article);
  turns += 1;
  return [...replies.children];
}

// `more` is put behind the text, a whole `text` in its place.
function grow(section, reply) {
  const [, text, note] = section.children;
  if (reply.more !== undefined) text.append(reply.more);
  else text.textContent = reply.text;
  section.classList.toggle("open", !reply.ended);
  const oldest = reply.forgotten === 1 ? "question and its answer" : `${reply.forgotten} questions and their answers`;
  const full = reply.forgotten ? `(written without the oldest ${oldest}, which no longer fit)` : "";
  const empty = reply.ended && !text.textContent ? "(nothing)" : "";
  note.textContent = [empty, reply.note, full].filter(Boolean).join(" ");
}

function show(state) {
  models = state.models;
  turns = 0;
  at("who").textContent = `with ${models.join(", ")}`;
  at("notes").replaceChildren(...state.notes.map((note) => made("li", "said", note)));
  at("system").value = state.system;
  at("talk").replaceChildren();
  state.turns.forEach(addTurn);
  atWork(false);
  follow();
}

function atWork(now) {
  busy = now;
  at("talk").setAttribute("aria-busy", String(now)); // read aloud once it is whole
  at("send").hidden = now;
  at("send").disabled = now;
  at("stop").hidden = !now;
  for (const id of ["retry", "undo", "reset"]) at(id).disabled = now || !turns;
  at("use").disabled = now;
}

// Whether the reader is at the end of the page: only then it is followed as it grows.
function atEnd() {
  const page = document.documentElement;
  return page.scrollHeight - page.scrollTop - page.clientHeight < NEAR;
}

function follow() {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}

function trouble(error) {
  at("trouble").textContent = error ? error.message : "";
  at("trouble").hidden = !error;
}

// Ask, and show the answers as they come.
async function answer(path, body) {
  if (busy) return;
  trouble(null);
  atWork(true);
  at("status").textContent = "answering …";
  let sections = [];
  try {
    await listen(path, body, (line) => {
      if (line.turn) {
        if (path === "/api/retry") { at("talk").lastElementChild.remove(); turns -= 1; }
        sections = addTurn(line.turn);
        at("question").value = "";
        return follow();
      }
      const followed = atEnd();
      line.replies.forEach((reply, place) => grow(sections[place], reply));
      if (followed) follow();
    });
    at("status").textContent = "";
  } catch (error) {
    at("status").textContent = "";
    const question = at("question").value || body.question || "";
    await refresh();
    at("question").value = question;
    trouble(error);
  }
  atWork(false);
  at("question").focus();
}

async function refresh() {
  try { show(await ask("/api/state")); } catch (error) { trouble(error); atWork(false); }
}

async function change(path, body) {
  if (busy) return null;
  trouble(null);
  try {
    const state = await ask(path, body);
    show(state);
    return state;
  } catch (error) {
    trouble(error);
    return null;
  }
}

async function stop() {
  if (!busy) return;
  at("status").textContent = "stopping …";
  try { await ask("/api/stop", {}); } catch (error) { trouble(error); }
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value;
  if (question.trim()) answer("/api/say", { question });
});
at("question").addEventListener("keydown", (event) => {
  // while a Korean or Japanese letter is being put together, Enter belongs to it
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !event.isComposing) stop(); });
at("stop").addEventListener("click", stop);
at("retry").addEventListener("click", () => answer("/api/retry", {}));
at("undo").addEventListener("click", async () => {
  const state = await change("/api/undo", {});
  if (state) at("question").value = state.taken;
  at("question").focus();
});
at("reset").addEventListener("click", async () => { await change("/api/reset", {}); at("question").focus(); });
at("use").addEventListener("click", async () => {
  if (await change("/api/system", { text: at("system").value })) at("status").textContent = "used from now on";
});

refresh();
