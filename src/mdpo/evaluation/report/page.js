"use strict";
(() => {
  const PAGE = 10;
  const KINDS = { 1: ["there", "named and there"], 2: ["absent", "named and absent"] };
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const controls = ["suite", "verdict", "system", "search", "differ"].map(byId);
  const [suite, verdict, system, search, differ] = controls;
  const cards = byId("cards");
  let shown = data.items;
  let page = 0;

  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  for (const item of data.items) {
    const answers = Object.values(item.answers).map((each) => (each.pieces || []).map(([text]) => text).join(""));
    item.text = [item.item, item.question, item.truth, ...answers].join("\n").toLowerCase();
  }

  const TESTS = {
    hallucinated: (answer) => answer.hallucinated === true,
    clean: (answer) => answer.hallucinated === false,
    right: (answer) => answer.right === true,
    wrong: (answer) => answer.right === false,
  };

  const answered = (item) => {
    if (!system.value) return Object.values(item.answers);
    return Object.hasOwn(item.answers, system.value) ? [item.answers[system.value]] : [];
  };

  const passes = (item) =>
    (!suite.value || item.suite === suite.value) &&
    (!differ.checked || item.differ) &&
    answered(item).some(TESTS[verdict.value] || (() => true)) &&
    item.text.includes(search.value.trim().toLowerCase());

  const answerNode = (name, answer) => {
    const node = make("div", `answer s${data.systems.indexOf(name) % 8}`);
    node.append(make("b", "", name));
    const bad = answer.right === false || answer.hallucinated === true;
    const good = answer.right === true || answer.hallucinated === false;
    node.append(make("span", `said${bad ? " bad" : good ? " good" : ""}`, answer.verdict));
    if (answer.pieces === null) {
      node.append(make("p", "none", "The answer is not in this run."));
      return node;
    }
    const text = make("p", answer.pieces.length ? "" : "none", answer.pieces.length ? undefined : "(empty)");
    for (const [piece, kind] of answer.pieces) {
      if (!kind) {
        text.append(piece);
        continue;
      }
      const mark = make("mark", KINDS[kind][0], piece);
      mark.title = KINDS[kind][1];
      text.append(mark);
    }
    node.append(text);
    return node;
  };

  const card = (item) => {
    const node = make("article", item.images.length ? "card pictured" : "card");
    node.tabIndex = -1;
    node.dataset.item = item.item;
    node.setAttribute("aria-label", `${item.suite} ${item.item}`);
    if (item.images.length) {
      const pictures = make("div");
      for (const place of item.images) {
        const picture = make("img");
        picture.src = data.images[place];
        picture.alt = `Image of item ${item.item}`;
        pictures.append(picture);
      }
      node.append(pictures);
    }
    const body = make("div");
    body.append(make("h3", "", `${item.suite} · ${item.item}${item.differ ? " · systems disagree" : ""}`));
    if (item.question) body.append(make("p", "question", item.question));
    if (item.truth) body.append(make("p", "truth", item.truth));
    const answers = make("div", "answers");
    for (const name of data.systems) {
      if (Object.hasOwn(item.answers, name)) answers.append(answerNode(name, item.answers[name]));
    }
    body.append(answers);
    node.append(body);
    return node;
  };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    cards.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(card));
    byId("count").textContent = `${shown.length} of ${data.items.length} items`;
    byId("pages").textContent = `page ${page + 1} of ${pages}`;
    byId("back").disabled = page === 0;
    byId("on").disabled = page === pages - 1;
  };

  const filter = () => {
    shown = data.items.filter(passes);
    page = 0;
    draw();
  };

  const turn = (step, place) => {
    const before = page;
    page += step;
    draw();
    if (page !== before && place !== undefined) cards.children[place < 0 ? cards.children.length - 1 : place].focus();
  };

  const move = (step) => {
    const all = [...cards.children];
    const current = all.findIndex((each) => each.contains(document.activeElement));
    if (current < 0) {
      if (all.length) all[step > 0 ? 0 : all.length - 1].focus();
    } else if (all[current + step]) {
      all[current + step].focus();
    } else {
      turn(step, step > 0 ? 0 : -1);
    }
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, button, summary");
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing) return;
    const inside = cards.contains(document.activeElement);
    if (event.key === "j" || (inside && event.key === "ArrowDown")) move(1);
    else if (event.key === "k" || (inside && event.key === "ArrowUp")) move(-1);
    else if (event.key === "/") search.focus();
    else return;
    event.preventDefault();
  });
  for (const each of controls) each.addEventListener("input", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("back").addEventListener("click", () => turn(-1));
  byId("on").addEventListener("click", () => turn(1));
  filter();
})();
