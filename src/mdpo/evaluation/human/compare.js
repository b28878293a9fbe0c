"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const kept = "mdpo-compare-" + data.page;
const choices = ["left", "right", "both", "neither"];
let state = { rater: "", votes: {}, at: 0 };
let remembers = true;

function store() {
  if (!remembers) return;
  try {
    localStorage.setItem(kept, JSON.stringify(state));
  } catch {
    remembers = false;
    say("This browser keeps nothing between visits: save your votes to a file before you leave.");
  }
}

function recall() {
  try {
    const found = JSON.parse(localStorage.getItem(kept));
    if (found && typeof found.votes === "object") state = { ...state, ...found };
  } catch {
    remembers = false;
    say("This browser keeps nothing between visits: save your votes to a file before you leave.");
  }
}

function say(text) {
  byId("message").textContent = text;
}

function show() {
  const item = data.items[state.at];
  byId("images").replaceChildren(
    ...item.images.map((place) => {
      const image = document.createElement("img");
      image.src = data.pictures[place];
      image.alt = "The image that both answers are about";
      return image;
    }),
  );
  byId("asked").textContent = item.question;
  byId("first").lastElementChild.textContent = item.answers[0];
  byId("second").lastElementChild.textContent = item.answers[1];
  const vote = state.votes[state.at];
  byId("first").classList.toggle("chosen", vote === "left" || vote === "both");
  byId("second").classList.toggle("chosen", vote === "right" || vote === "both");
  for (const button of document.querySelectorAll("[data-vote]"))
    button.setAttribute("aria-pressed", String(button.dataset.vote === vote));
  const given = Object.keys(state.votes).length;
  byId("bar").max = data.items.length;
  byId("bar").value = given;
  byId("count").textContent = `${state.at + 1} of ${data.items.length}, ${given} voted`;
  byId("back").disabled = state.at === 0;
  byId("next").disabled = state.at === data.items.length - 1;
}

function go(place) {
  state.at = Math.max(0, Math.min(data.items.length - 1, place));
  store();
  show();
}

function vote(choice) {
  state.votes[state.at] = choice;
  const given = Object.keys(state.votes).length;
  if (given === data.items.length) say("All votes are given. Save them to a file and send it back.");
  go(state.at + 1);
}

function toOpen() {
  const place = data.items.findIndex((_, k) => !(k in state.votes));
  if (place < 0) say("Every pair has a vote.");
  else go(place);
}

function asFile() {
  return JSON.stringify({ page: data.page, rater: state.rater, votes: state.votes }, null, 1);
}

function save() {
  if (!state.rater.trim()) {
    say("Write your name first: votes of several people are told apart by it.");
    byId("rater").focus();
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([asFile()], { type: "application/json" }));
  link.download = `votes-${state.rater.trim().replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
  link.click();
  say(`Saved as ${link.download}.`);
}

async function load(file) {
  try {
    const found = JSON.parse(await file.text());
    const fits = Object.entries(found.votes).every(
      ([place, choice]) => Number(place) in data.items && choices.includes(choice),
    );
    if (found.page !== data.page || !fits) throw new Error();
    state = { rater: String(found.rater || ""), votes: found.votes, at: 0 };
    byId("rater").value = state.rater;
    store();
    toOpen();
    show();
    say("Votes are taken from the file.");
  } catch {
    say("This file does not hold votes on this page.");
  }
}

document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const number = "1234".indexOf(event.key);
  if (number >= 0) vote(choices[number]);
  else if (event.key === "ArrowLeft" || event.key === "Backspace") go(state.at - 1);
  else if (event.key === "ArrowRight") go(state.at + 1);
  else if (event.key === "u" || event.key === "U") toOpen();
  else if (event.key === "s" || event.key === "S") save();
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-vote]"))
  button.addEventListener("click", () => vote(button.dataset.vote));
byId("back").addEventListener("click", () => go(state.at - 1));
byId("next").addEventListener("click", () => go(state.at + 1));
byId("open").addEventListener("click", toOpen);
byId("save").addEventListener("click", save);
byId("load").addEventListener("change", (event) => load(event.target.files[0]));
byId("rater").addEventListener("input", (event) => {
  state.rater = event.target.value;
  store();
});

byId("question").textContent = data.question;
recall();
state.at = Math.min(state.at, data.items.length - 1);
byId("rater").value = state.rater;
show();
