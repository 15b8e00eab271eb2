"use strict";

// The model: the checkpoint's numbers, and its forward pass for one context.

const model = JSON.parse(document.getElementById("model").textContent);
const numbers = new Float32Array(
  Uint8Array.from(atob(model.weights), (character) => character.charCodeAt(0)).buffer,
);
const END = 0;
const EPSILON = 1e-5;
const TOLERANCE = 1e-3;
const LONGEST = 30;
const symbols = ["", ...model.characters];
const tokenOf = new Map(symbols.map((symbol, token) => [symbol, token]));

function tensor(name) {
  const { offset, shape } = model.tensors[name];
  return numbers.subarray(offset, offset + shape.reduce((product, size) => product * size, 1));
}

function linear(x, weight, bias) {
  return Array.from(bias, (sum, row) => {
    for (let i = 0; i < x.length; i++) sum += weight[row * x.length + i] * x[i];
    return sum;
  });
}

function mean(x) {
  return x.reduce((sum, value) => sum + value, 0) / x.length;
}

function rmsNorm(x, name) {
  const weight = tensor(`${name}.weight`);
  const size = Math.sqrt(mean(x.map((value) => value * value)) + EPSILON);
  return x.map((value, i) => (value / size) * weight[i]);
}

function layerNorm(x, name) {
  const centre = mean(x);
  const centred = x.map((value) => value - centre);
  const size = Math.sqrt(mean(centred.map((value) => value * value)) + EPSILON);
  const [weight, bias] = [tensor(`${name}.weight`), tensor(`${name}.bias`)];
  return centred.map((value, i) => (value / size) * weight[i] + bias[i]);
}

function joinedTanh({ layer, layerNorm: norm }, rows) {
  const y = linear(rows.flat(), tensor(`${layer}.weight`), tensor(`${layer}.bias`));
  return (norm ? layerNorm(y, norm) : y).map(Math.tanh);
}

function gatedJoin({ value, gate, rmsNorm: norm }, rows) {
  const joined = rows.flatMap((row) => rmsNorm(row, norm));
  const [values, gates] = [value, gate].map((layer) =>
    linear(joined, tensor(`${layer}.weight`), tensor(`${layer}.bias`)),
  );
  return rows.at(-1).map((x, i) => x + values[i] * gates[i]);
}

/** The logits (V) after a context of `blockSize` tokens. */
function logits(context) {
  const embedding = tensor("embedding.weight");
  const channels = model.tensors["embedding.weight"].shape[1];
  let rows = context.map((token) =>
    Array.from(embedding.subarray(token * channels, (token + 1) * channels)),
  );
  for (const level of model.levels) {
    const next = [];
    for (let i = 0; i < rows.length; i += level.arity) {
      const group = rows.slice(i, i + level.arity);
      next.push(level.gate ? gatedJoin(level, group) : joinedTanh(level, group));
    }
    rows = next;
  }
  const { weight, bias, rmsNorm: norm } = model.output;
  return linear(norm ? rmsNorm(rows[0], norm) : rows[0], tensor(weight), tensor(bias));
}

/** The logits (V) of what follows the tokens of a name. */
function following(name) {
  const padded = [...Array(model.blockSize).fill(END), ...name];
  return logits(padded.slice(-model.blockSize));
}

function softmax(scores, temperature = 1) {
  const highest = Math.max(...scores);
  const exps = scores.map((score) => Math.exp((score - highest) / temperature));
  const sum = exps.reduce((total, value) => total + value, 0);
  return exps.map((value) => value / sum);
}

/** The probabilities (V) of what follows the tokens of a name when one is drawn: none is empty. */
function probabilities(name, temperature) {
  const scores = following(name);
  if (name.length === 0) scores[END] = -Infinity;
  return softmax(scores, temperature);
}

function draw(probability) {
  let rest = Math.random();
  const token = probability.findIndex((p) => (rest -= p) < 0);
  return token < 0 ? probability.length - 1 : token;
}

/** The tokens of an invented name that starts with those given. */
function invent(prefix, temperature) {
  const name = [...prefix];
  while (name.length < LONGEST) {
    const token = draw(probabilities(name, temperature));
    if (token === END) break;
    name.push(token);
  }
  return name;
}

/** The probability of each character of a name, and of its end, one after the other. */
function chances(name) {
  return [...name, END].map((token, i) => softmax(following(name.slice(0, i)))[token]);
}

// What is typed, and what is shown.

const known = (text) => [...text].every((character) => tokenOf.has(character));
const bare = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").normalize("NFC");

/** A character as the model knows it: itself, or in the other case, or without its accent. */
function fold(character) {
  if (known(character)) return character;
  const cases = (text) => [text.toUpperCase(), text.toLowerCase()];
  for (const readings of [cases(character), [bare(character), ...cases(bare(character))]]) {
    const found = [...new Set(readings.filter((text) => text && known(text)))];
    if (found.length) return found.length === 1 ? found[0] : null;
  }
  return null;
}

const element = (id) => document.getElementById(id);
const percent = (p) => (p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(1)}%`);

/** A label of a character that can be seen where it stands alone, as `printable` in corpus.py. */
function printable(symbol) {
  if (symbol === " ") return "␣";
  if (/[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/u.test(symbol))
    return `U+${symbol.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  return /\p{M}/u.test(symbol) ? `◌${symbol}` : symbol;
}

const shown = (token) => (token === END ? "(end)" : printable(symbols[token]));
const spelt = (name) => name.map((token) => symbols[token]).join("");
const signed = (number, digits) => number.toFixed(digits).replace("-", "−");
const likelihood = (name) => chances(name).reduce((sum, p) => sum + Math.log(p), 0);

function make(kind, text, className) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Characters with a separator between them, each isolated from the direction of the others. */
function listed(characters, separator) {
  const isolated = characters.map((character) => make("bdi", printable(character)));
  return isolated.flatMap((character, i) => (i ? [separator, character] : [character]));
}

/** The tokens of what is typed; null, and a line that says why, where the model cannot read it. */
function typed() {
  const text = [...element("prefix").value.normalize("NFC")];
  const folded = text.map(fold);
  const unread = text.filter((_, i) => folded[i] === null);
  const complaint = unread.length
    ? ["The model does not know ", ...listed([...new Set(unread)], ", "), ". It knows: ", ...listed(model.characters, " ")]
    : text.length > LONGEST
      ? [`At most ${LONGEST} characters.`]
      : [];
  element("complaint").replaceChildren(...complaint);
  if (complaint.length) return null;
  return [...folded.join("")].map((character) => tokenOf.get(character));
}

function temperature() {
  return Number(element("temperature").value);
}

function showNext(name) {
  const probability = probabilities(name, temperature());
  const ranked = [...probability.keys()].sort((a, b) => probability[b] - probability[a]);
  const rows = ranked.slice(0, 12).map((token) => {
    const row = make("li", "");
    const letter = make(token === END ? "span" : "button", shown(token), "letter");
    if (token !== END) {
      letter.type = "button";
      letter.setAttribute("aria-label", `add ${shown(token)}`);
      letter.addEventListener("click", () => {
        element("prefix").value = spelt([...name, token]);
        update();
        element("next").querySelector("button")?.focus();
      });
    }
    const bar = make("span", "", "bar");
    bar.style.setProperty("--share", probability[token] / probability[ranked[0]]);
    row.append(letter, bar, make("span", percent(probability[token]), "percent"));
    return row;
  });
  element("next").replaceChildren(...rows);
}

function showChances(name) {
  const every = name.length ? chances(name) : [];
  const cells = every.map((p, i) => {
    const cell = make("li", "");
    cell.append(make("span", shown(name[i] ?? END), "letter"), make("span", percent(p), "percent"));
    return cell;
  });
  element("chances").replaceChildren(...cells);
  element("whole").textContent = name.length
    ? `As a whole name: log-likelihood ${signed(likelihood(name), 2)} nats, ` +
      `or once in ${Math.round(Math.exp(-likelihood(name))).toLocaleString("en")} names.`
    : "";
}

function update() {
  element("degrees").textContent = temperature().toFixed(2);
  const name = typed();
  element("invent").disabled = name === null;
  if (name === null) {
    for (const id of ["next", "chances", "whole"]) element(id).replaceChildren();
    return;
  }
  showNext(name);
  showChances(name);
}

function showInvented(event) {
  event.preventDefault();
  const prefix = typed();
  if (prefix === null) return;
  const rows = Array.from({ length: 10 }, () => {
    const name = invent(prefix, temperature());
    const row = make("li", "");
    row.append(make("bdi", spelt(name), "name"), make("span", signed(likelihood(name), 1), "percent"));
    return row;
  });
  element("invented").replaceChildren(...rows);
}

/** Whether names are as likely here as they were when the model was trained. */
function computesRight() {
  return model.compared.every(([name, its]) => Math.abs(likelihood(name) - its) < TOLERANCE);
}

if (computesRight()) {
  element("prefix").addEventListener("input", update);
  element("temperature").addEventListener("input", update);
  element("generator-form").addEventListener("submit", showInvented);
  update();
} else {
  for (const control of element("generator-form").elements) control.disabled = true;
  element("complaint").textContent =
    "The model does not run here, because this page computes other likelihoods than the pipeline did.";
}
