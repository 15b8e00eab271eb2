"use strict";

// The models: the numbers of their checkpoints, and their forward pass for one context, as in
// `live.py`.

const live = JSON.parse(document.getElementById("live").textContent);
const END = 0;
const EPSILON = 1e-5;
const TOLERANCE = 5e-3;
const LONGEST = 30;
const ORDERS = [2, 4];
const LEVELS = 8;
const symbols = ["", ...live.characters];
const tokenOf = new Map(symbols.map((symbol, token) => [symbol, token]));

/** The model that was chosen. */
let model = live.models[0];

/** The numbers of all tensors. */
let tensors = [];

/** The numbers of a tensor. */
async function unpack({ data, size, width, low, step, rising }) {
  const deflated = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const numbers = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    let integer = 0;
    for (let byte = width - 1; byte >= 0; byte--)
      integer = 256 * integer + bytes[byte * size + i];
    numbers[i] = low + step * integer + (rising && i ? numbers[i - 1] : 0);
  }
  return numbers;
}

function product(x, weight, bias) {
  return Array.from(bias, (sum, row) => {
    for (let i = 0; i < x.length; i++) sum += weight[row * x.length + i] * x[i];
    return sum;
  });
}

function linear(its, x, layer) {
  return product(x, its(`${layer}.weight`), its(`${layer}.bias`));
}

function mean(x) {
  return x.reduce((sum, value) => sum + value, 0) / x.length;
}

function added(x, y) {
  return x.map((value, i) => value + y[i]);
}

function multiplied(x, y) {
  return x.map((value, i) => value * y[i]);
}

function rmsNorm(its, x, norm) {
  const size = Math.sqrt(mean(multiplied(x, x)) + EPSILON);
  return multiplied(x, its(`${norm}.weight`)).map((value) => value / size);
}

function layerNorm(its, x, norm) {
  const center = mean(x);
  const centered = x.map((value) => value - center);
  const size = Math.sqrt(mean(multiplied(centered, centered)) + EPSILON);
  const scaled = multiplied(centered, its(`${norm}.weight`)).map((value) => value / size);
  return added(scaled, its(`${norm}.bias`));
}

function tanh(its, x, layer, norm) {
  const y = linear(its, x, layer);
  return (its(`${norm}.weight`) ? layerNorm(its, y, norm) : y).map(Math.tanh);
}

function rowOf(matrix, row, rows) {
  const size = matrix.length / rows;
  return Array.from(matrix.subarray(row * size, (row + 1) * size));
}

function embedded(its, context) {
  return context.map((token) => rowOf(its("embedding.weight"), token, symbols.length));
}

function pairs(rows) {
  return rows.flatMap((right, i) => (i % 2 ? [[rows[i - 1], right]] : []));
}

function fcn(its, context) {
  return linear(its, tanh(its, embedded(its, context).flat(), "hidden", "norm"), "output");
}

function wavenet(its, context) {
  let rows = embedded(its, context);
  for (let level = 0; rows.length > 1; level++)
    rows = pairs(rows).map((pair) => tanh(its, pair.flat(), `tree.${level}`, `norms.${level}`));
  return linear(its, rows[0], "output");
}

function compact(its, context) {
  return tied(its, features(its, context));
}

/** The features (C) of a compact WaveNet. */
function features(its, context) {
  let rows = embedded(its, context);
  let level = 0;
  for (; rows.length > 1; level++) {
    const normalized = rows.map((row) => rmsNorm(its, row, `norms.${level}`));
    const layer = its(`value.${level}.weight`) ? level : 0;
    const gated = pairs(normalized).map((pair) =>
      multiplied(
        linear(its, pair.flat(), `value.${layer}`),
        linear(its, pair.flat(), `gate.${layer}`),
      ),
    );
    rows = pairs(rows).map(([, right], i) => added(right, gated[i]));
  }
  return rmsNorm(its, rows[0], `norms.${level}`);
}

/** The logits (V) by the embedding of a compact WaveNet. */
function tied(its, x) {
  return product(x, its("embedding.weight"), its("bias"));
}

function kneserNey(its, context) {
  return lookUp(its, context, [context.length]).logProbs[0];
}

function hybrid(its, context) {
  const orders = [...ORDERS.filter((order) => order < context.length), context.length];
  const { logProbs, level } = lookUp((name) => its(`counts.${name}`), context, orders);
  const roots = logProbs.flat().map((p) => Math.exp(p / 2));
  const each = [];
  while (its(`corrections.${each.length}.trust.weight`)) {
    const prefix = `corrections.${each.length}`;
    each.push(correction((name) => its(`${prefix}.${name}`), context, logProbs, roots, level));
  }
  if (each.length === 1) return each[0];
  return each.map((scores) => softmax(scores)).reduce(added).map((p) => Math.log(p / each.length));
}

/** The logits (V) of a member of the hybrid. */
function correction(its, context, logProbs, roots, level) {
  const net = (name) => its(`net.${name}`);
  const levels = LEVELS * (context.length + 1);
  const x = added(features(net, context), rowOf(its("level.weight"), level, levels));
  const [value, gate] = ["value", "gate"].map((layer) =>
    added(linear(its, x, `${layer}.0`), linear(its, roots, `${layer}.1`)),
  );
  const joined = added(x, multiplied(value, gate));
  return linear(its, joined, "trust").reduce(
    (logits, trust, k) => added(logits, logProbs[k].map((p) => trust * p)),
    tied(net, joined),
  );
}

/** The log-probabilities (K, V) by counts of up to K orders, and the level of confidence. */
function lookUp(its, context, orders) {
  const [children, front, begins, tokens, counts, discounts] = [
    "children", "front", "begins", "tokens", "counts", "discounts",
  ].map(its);
  let probs = symbols.map(() => 1 / symbols.length);
  const byLength = [];
  let [node, level] = [0, 0];
  for (let length = 0; length < discounts.length / 3; length++) {
    if (length) {
      const token = context[context.length - length];
      const found = front.subarray(children[node], children[node + 1]).indexOf(token);
      if (found < 0) break;
      node = children[node] + found;
    }
    const n = counts.subarray(begins[node], begins[node + 1]);
    const taken = n.map((count) => discounts[3 * length + Math.min(count, 3) - 1]);
    const total = n.reduce((sum, count) => sum + count, 0);
    if (total) {
      const left = taken.reduce((sum, discount) => sum + discount, 0) / total;
      probs = probs.map((p) => p * left);
      for (let i = 0; i < n.length; i++)
        probs[tokens[begins[node] + i]] += (n[i] - taken[i]) / total;
      level = LEVELS * length + Math.min(Math.floor(Math.log2(total)), LEVELS - 1);
    }
    byLength.push(probs);
  }
  const upTo = (order) => byLength[Math.min(order, byLength.length - 1)];
  return { logProbs: orders.map((order) => upTo(order).map(Math.log)), level };
}

function mixture(its, context) {
  const weights = its("weights");
  return model.members
    .map((architecture, i) => {
      const member = FORWARD[architecture]((name) => its(`members.${i}.${name}`), context);
      return softmax(member).map((p) => weights[i] * p);
    })
    .reduce(added)
    .map(Math.log);
}

const FORWARD = { fcn, wavenet, compact, hybrid, kneser_ney: kneserNey, mixture };

/** The logits (V) after a context of `blockSize` tokens. */
function logits(context) {
  return FORWARD[model.architecture]((name) => tensors[model.tensors[name]], context);
}

/** The logits (V) of what follows the tokens of a name. */
function following(name) {
  const padded = [...Array(live.blockSize).fill(END), ...name];
  return logits(padded.slice(-live.blockSize));
}

function softmax(scores, temperature = 1) {
  const highest = Math.max(...scores);
  const exps = scores.map((score) => Math.exp((score - highest) / temperature));
  const sum = exps.reduce((total, value) => total + value, 0);
  return exps.map((value) => value / sum);
}

/** The probabilities (V) of what follows the tokens of a generated name, which is never empty. */
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

/** The tokens of a generated name that starts with those given. */
function generate(prefix, temperature) {
  const name = [...prefix];
  while (name.length < LONGEST) {
    const token = draw(probabilities(name, temperature));
    if (token === END) break;
    name.push(token);
  }
  return name;
}

/** The probability of each character of a name and of its end. */
function chances(name) {
  return [...name, END].map((token, i) => softmax(following(name.slice(0, i)))[token]);
}

// Input and output.

const known = (text) => [...text].every((character) => tokenOf.has(character));
const bare = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").normalize("NFC");

/** A character as the models know it: itself, or in the other case, or without its accent. */
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

/** A visible label of a character, as `printable` in corpus.py. */
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

/** The tokens of what is typed; null, and a line that says why, if the models cannot read it. */
function typed() {
  const text = [...element("prefix").value.normalize("NFC")];
  const folded = text.map(fold);
  const unread = text.filter((_, i) => folded[i] === null);
  const complaint = unread.length
    ? ["The model does not know ", ...listed([...new Set(unread)], ", "), ". It knows: ", ...listed(live.characters, " ")]
    : text.length > LONGEST
      ? [`Type at most ${LONGEST} characters.`]
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
  element("typed").hidden = !name.length;
  element("chances").replaceChildren(...cells);
  element("whole").textContent = name.length
    ? `As a whole name: log-likelihood ${signed(likelihood(name), 2)} nats, ` +
      `or 1 in ${Math.round(Math.exp(-likelihood(name))).toLocaleString("en")} generated names.`
    : "";
}

function update() {
  element("degrees").textContent = temperature().toFixed(2);
  const name = typed();
  element("generate").disabled = name === null;
  element("predictions").hidden = name === null;
  if (name === null) {
    for (const id of ["next", "chances", "whole"]) element(id).replaceChildren();
    element("typed").hidden = true;
    return;
  }
  showNext(name);
  showChances(name);
}

function showGenerated() {
  const prefix = typed();
  if (prefix === null) return;
  const rows = Array.from({ length: 10 }, () => {
    const name = generate(prefix, temperature());
    const row = make("li", "");
    row.append(make("bdi", spelt(name), "name"), make("span", signed(likelihood(name), 1), "percent"));
    return row;
  });
  element("generated").replaceChildren(...rows);
}

/** Whether names are as likely here as in the pipeline. */
function computesRight() {
  return model.compared.every(([name, its]) => Math.abs(likelihood(name) - its) < TOLERANCE);
}

/** Enable the controls, except perhaps the choice of a model. */
function enable(enabled, choice = true) {
  for (const control of element("generator-form").elements) control.disabled = !enabled;
  element("choice").disabled = !choice;
}

function refuse(reason) {
  element("predictions").hidden = element("typed").hidden = true;
  element("complaint").textContent = `The model does not run here: ${reason}.`;
}

/** Run the model that is selected. Returns whether it can run. */
function choose() {
  model = live.models[element("choice").selectedIndex];
  const right = computesRight();
  enable(right);
  if (right) update();
  else refuse("its likelihoods differ from those in the pipeline");
  return right;
}

function start(unpacked) {
  tensors = unpacked;
  choose();
  element("prefix").addEventListener("input", update);
  element("temperature").addEventListener("input", update);
  element("choice").addEventListener("change", () => choose() && showGenerated());
  element("generator-form").addEventListener("submit", (event) => {
    event.preventDefault();
    showGenerated();
  });
}

enable(false, false);
element("generator-form").hidden = false;
element("complaint").textContent = "Loading the models.";
const ready = Promise.all(live.tensors.map(unpack)).then(start, () =>
  refuse("this browser cannot unpack it"),
);
