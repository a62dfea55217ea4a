// The blind test. The server knows whose answers these are; nothing here does, until the end.
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", t: "tie", b: "both_bad" };
const TEXTS = JSON.parse(document.body.dataset.texts); // of the page's language
const VERDICTS = { better: "better", worse: "worse", tie: "not-settled" };
gone = TEXTS.gone;
let judge = "";
let shown = null; // the pair on the screen, as the server sent it
let since = 0; // when it came, in milliseconds
let busy = false;

// One section is there at a time; its heading gets the focus, so that keys and screen readers begin there.
function show(name) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== name;
  at(name).querySelector("h1").focus();
  scrollTo(0, 0);
}

// A fixed text with its blanks filled in.
const said = (key, blanks = {}) => TEXTS[key].replace(/\{(\w+)\}/g, (_, name) => blanks[name]);

// An element with a text: texts of files and models never become markup.
function make(tag, text, kind) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

// Do one thing at a time; what went wrong is said where it is seen and heard.
async function doing(action) {
  if (busy) return;
  busy = true;
  try {
    await action();
    at("trouble").hidden = true;
  } catch (error) {
    at("trouble").textContent = error.message;
    at("trouble").hidden = false;
  } finally {
    busy = false;
  }
}

async function begin(name) {
  const view = await ask("/api/next", { judge: name });
  judge = view.judge;
  await turnTo(view, "");
}

async function turnTo(view, done) {
  shown = view;
  if (view.finished) return view.told ? result({}) : through(view);
  since = performance.now();
  const where = said("pair", { number: view.done + 1, of: view.of });
  at("where").textContent = where;
  at("progress").max = view.of;
  at("progress").value = view.done;
  at("undo").disabled = view.done === 0;
  at("news").hidden = !view.news;
  at("news").textContent = view.news;
  at("turns").replaceChildren(...view.turns.map((turn, number) => drawn(turn, number, view.turns.length)));
  confirmStop(false);
  show("vote");
  at("status").textContent = [done, where, view.news].filter(Boolean).join(". ");
}

// The last vote can be taken back as long as no name was told.
function through(view) {
  at("all").textContent = said(view.of > 0 ? "all" : "identical", view);
  at("back").hidden = view.of === 0;
  show("through");
  at("reveal").focus();
}

function drawn(turn, number, count) {
  const section = make("section", "", "turn");
  section.setAttribute("aria-label", said(count > 1 ? "turn" : "one-turn", { number: number + 1, of: count }));
  section.append(make("p", turn.asked, "asked said"));
  const answers = make("div", "", "answers");
  for (const [place, text] of [[1, turn.left], [2, turn.right]]) {
    const answer = make("article", "", "answer");
    answer.append(make("h2", said("answer", { number: place })), make("div", text || said("nothing"), text ? "said" : "quiet"));
    answer.lastChild.dir = "auto";
    answers.append(answer);
  }
  section.append(answers);
  return section;
}

const choose = (choice) => doing(async () => {
  const seconds = (performance.now() - since) / 1000;
  await turnTo(await ask("/api/vote", { judge, pair: shown.pair, choice, seconds }), said(choice));
});

const undo = () => doing(async () => {
  if (shown.done > 0) await turnTo(await ask("/api/undo", { judge }), said("back"));
});

function confirmStop(open) {
  at("sure").hidden = !open;
  at("stop").disabled = open;
  if (open) at("yes").focus();
}

async function result(body) {
  const found = await ask("/api/result", { judge, ...body });
  at("conclusion").textContent = found.said[0];
  at("limits").replaceChildren(...found.said.slice(1).map((sentence) => make("li", sentence)));
  at("pairs").replaceChildren(...found.pairs.map((pair) => line(
    said("against", pair), said(VERDICTS[pair.verdict]), pair.win_rate, pair.interval, pair.wins_b, pair.wins_a,
    pair.ties, pair.both_bad,
  )));
  at("ranking").replaceChildren(...found.ranking.map((one) => line(...one)));
  at("ranked").hidden = found.ranking.length === 0;
  show("end");
}

function line(name, ...values) {
  const row = document.createElement("tr");
  const head = make("th", name);
  head.scope = "row";
  row.append(head, ...values.map((value) => make("td", value)));
  return row;
}

async function start() {
  const state = await ask("/api/state");
  at("amount").textContent = state.amount;
  at("judge").value = state.judge;
  show("start");
  at("judge").focus();
}

at("who").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(() => begin(at("judge").value));
});
for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}
for (const id of ["undo", "back"]) at(id).addEventListener("click", undo);
at("reveal").addEventListener("click", () => doing(() => result({})));
at("stop").addEventListener("click", () => confirmStop(true));
at("no").addEventListener("click", () => { confirmStop(false); at("where").focus(); });
at("yes").addEventListener("click", () => doing(() => result({ stop: true })));
at("again").addEventListener("click", () => doing(async () => { judge = ""; await start(); at("judge").value = ""; }));
at("close").addEventListener("click", () => doing(async () => { await ask("/api/close", {}); show("closed"); }));
document.addEventListener("keydown", (event) => {
  const voting = !at("vote").hidden;
  if ((!voting && at("through").hidden) || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const choice = voting && (KEYS[event.key] || KEYS[event.key.toLowerCase()]);
  if (!choice && event.key.toLowerCase() !== "u") return;
  event.preventDefault();
  if (choice) choose(choice); else undo();
});
doing(start);
