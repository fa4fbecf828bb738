"use strict";
// The front to explore. Data is in the page; all text is set as text, never as markup.
(function () {
  const root = document.documentElement;
  root.classList.add("scripted");
  themes(document.getElementById("theme"));
  const block = document.getElementById("front-data");
  if (!block) return;

  const data = JSON.parse(block.textContent);
  const count = data.objectives.length;
  const byNumber = new Map();
  for (const point of data.dots) byNumber.set(point.n, { ...point, kind: "dominated" });
  for (const point of data.front) byNumber.set(point.n, { ...point, kind: "front" });
  const state = { picked: data.first, hover: null, view: count > 2 ? "parallel" : "plane", x: 0, y: count > 1 ? 1 : 0, form: "hf", predicted: true };
  const svg = document.getElementById("picture");
  const tip = document.getElementById("tip");
  let labels = []; // boxes that text occupies already
  let targets = []; // what the pointer can hit: {point, x, y} or, with many objectives, {point, line}

  // --- making elements -----------------------------------------------------------------------------------------
  function make(name, attributes, ...children) {
    const drawn = ["svg", "g", "line", "rect", "circle", "path", "text", "title"].includes(name);
    const node = drawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) if (value !== null) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null));
    return node;
  }
  const shown = (value, objective) =>
    value === null ? "–" : data.objectives[objective].points ? (100 * value).toFixed(1) : Number(value.toPrecision(4)).toString();
  const withError = (point, o) => (point.e[o] === 0 ? shown(point.s[o], o) : shown(point.s[o], o) + " ± " + shown(point.e[o], o));
  const nameOf = (point) =>
    point.predicted !== undefined ? "predicted point " + point.predicted + ", not measured" : point.name === undefined ? "candidate " + point.n : "parent " + point.name;
  const predicted = () => (state.predicted ? data.predicted : []);

  // --- scales --------------------------------------------------------------------------------------------------
  function extent(objective) {
    const values = [];
    for (const point of [...byNumber.values(), ...data.parents, ...data.predicted]) if (point.s[objective] !== null) values.push(point.s[objective]);
    for (const point of data.front) values.push(point.s[objective] - point.e[objective], point.s[objective] + point.e[objective]); // room for their bars
    const low = Math.min(...values), high = Math.max(...values), room = (high - low || Math.abs(high) || 1) * 0.05;
    return [low - room, high + room];
  }
  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
    const found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(value);
    return found;
  }
  const scale = (low, high, start, end) => (value) => start + ((value - low) / (high - low || 1)) * (end - start);

  // --- drawing -------------------------------------------------------------------------------------------------
  function draw() {
    const width = svg.clientWidth || 640, height = svg.clientHeight || 470;
    svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    svg.replaceChildren();
    targets = [];
    labels = [];
    if (count === 1) strip(width, height);
    else if (state.view === "plane") plane(width, height);
    else parallel(width, height);
  }

  function axes(width, height, box, xs, ys, xTitle, yTitle) {
    for (const [value, text] of ys.ticks) {
      const y = ys.at(value);
      svg.append(make("line", { x1: box.left, x2: box.right, y1: y, y2: y, class: "grid" }));
      svg.append(make("text", { x: box.left - 7, y: y + 4, "text-anchor": "end" }, text));
    }
    for (const [value, text] of xs.ticks) {
      const x = xs.at(value);
      svg.append(make("line", { x1: x, x2: x, y1: box.top, y2: box.bottom, class: "grid" }));
      svg.append(make("text", { x: x, y: box.bottom + 17, "text-anchor": "middle" }, text));
    }
    svg.append(make("text", { x: box.right, y: height - 6, "text-anchor": "end", class: "title" }, xTitle));
    svg.append(make("text", { x: 6, y: 15, class: "title" }, yTitle));
  }
  const titled = (o) => data.objectives[o].name + (data.objectives[o].points ? " (points)" : "") + (data.objectives[o].sign < 0 ? ", lower is better" : "");

  function plane(width, height) {
    const box = { left: 52, right: width - 16, top: 28, bottom: height - 44 };
    const [ax, ay] = [state.x, state.y];
    const [xl, xh] = extent(ax), [yl, yh] = extent(ay);
    const x = scale(xl, xh, box.left, box.right), y = scale(yl, yh, box.bottom, box.top);
    axes(width, height, box,
      { at: x, ticks: ticks(xl, xh, 6).map((v) => [v, shown(v, ax)]) },
      { at: y, ticks: ticks(yl, yh, 6).map((v) => [v, shown(v, ay)]) }, titled(ax) + " →", "↑ " + titled(ay));
    if (count === 2) staircase(x, y, ax, ay);
    const put = (point, kind) => {
      const spot = { point, x: x(point.s[ax]), y: y(point.s[ay]) };
      targets.push(spot);
      if (kind !== "dominated") whiskers(spot, point, kind, x, y, ax, ay);
      mark(spot, kind);
    };
    for (const point of data.dots) put(point, "dominated");
    for (const point of predicted()) put(point, "predicted");
    for (const point of data.front) put(point, "front");
    for (const parent of data.parents) { put(parent, "parent"); label(targets[targets.length - 1], parent.name, box); }
    const chosen = byNumber.get(state.picked);
    if (chosen) {
      const spot = { x: x(chosen.s[ax]), y: y(chosen.s[ay]) };
      whiskers(spot, chosen, "picked", x, y, ax, ay);
      ring(spot, 9, "var(--picked)");
      label(spot, String(chosen.n), box);
    }
    if (state.hover) ring({ x: x(state.hover.s[ax]), y: y(state.hover.s[ay]) }, 7, "var(--soft)");
  }

  function staircase(x, y, ax, ay) {
    const sx = data.objectives[ax].sign, sy = data.objectives[ay].sign;
    const sorted = [...data.front].sort((a, b) => sx * (a.s[ax] - b.s[ax]) || sy * (b.s[ay] - a.s[ay]));
    if (!sorted.length) return;
    let path = "M" + x(sorted[0].s[ax]) + " " + y(sorted[0].s[ay]);
    for (const point of sorted.slice(1)) path += "V" + y(point.s[ay]) + "H" + x(point.s[ax]);
    svg.append(make("path", { d: path, class: "line front", "stroke-opacity": 0.45 }));
  }
  function whiskers(spot, point, kind, x, y, ax, ay) {
    for (const [o, at] of [[ax, x], [ay, y]]) {
      const [from, to] = kind === "predicted" ? [point.low[o], point.high[o]] : [point.s[o] - point.e[o], point.s[o] + point.e[o]];
      const low = at(from), high = at(to);
      svg.append(make("line", { class: "whisker " + kind, x1: o === ax ? low : spot.x, x2: o === ax ? high : spot.x, y1: o === ax ? spot.y : low, y2: o === ax ? spot.y : high }));
    }
  }
  function mark(spot, kind) {
    if (kind === "parent") svg.append(make("path", { d: "M" + spot.x + " " + (spot.y - 7) + "l7 7l-7 7l-7 -7z", class: "parent" }));
    else if (kind === "predicted") svg.append(make("rect", { x: spot.x - 5, y: spot.y - 5, width: 10, height: 10, class: kind }));
    else svg.append(make("circle", { cx: spot.x, cy: spot.y, r: kind === "front" ? 5 : 3, class: kind + (spot.point.estimated ? " estimated" : "") }));
  }
  function ring(spot, radius, colour) {
    svg.append(make("circle", { cx: spot.x, cy: spot.y, r: radius, fill: "none", stroke: colour, "stroke-width": 2.5, class: "ring" }));
  }
  function label(spot, text, box) {
    const left = spot.x > box.right - 70;
    const short = text.length > 22 ? text.slice(0, 21) + "…" : text;
    const x = spot.x + (left ? -11 : 11), wide = 7 * short.length * (left ? -1 : 1);
    const taken = (y) => labels.some((other) => Math.abs(other.y - y) < 13 && Math.min(other.x, other.end) < Math.max(x, x + wide) && Math.max(other.x, other.end) > Math.min(x, x + wide));
    const y = [-8, 16, -22, 30, -36, 44].map((shift) => spot.y + shift).find((height) => !taken(height)) ?? spot.y - 8;
    labels.push({ x, y, end: x + wide });
    svg.append(make("text", { x, y, "text-anchor": left ? "end" : "start", class: "name" }, short));
  }

  function strip(width, height) {
    const box = { left: 52, right: width - 16, top: 28, bottom: height - 44 };
    const all = [...byNumber.values()], last = Math.max(1, ...all.map((p) => p.n));
    const [yl, yh] = extent(0);
    const x = scale(0, last, box.left, box.right), y = scale(yl, yh, box.bottom, box.top);
    axes(width, height, box, { at: x, ticks: ticks(0, last, 6).map((v) => [v, String(Math.round(v))]) },
      { at: y, ticks: ticks(yl, yh, 6).map((v) => [v, shown(v, 0)]) }, "candidate →", "↑ " + titled(0));
    for (const parent of data.parents) {
      const height = y(parent.s[0]);
      svg.append(make("line", { x1: box.left, x2: box.right, y1: height, y2: height, class: "line parent dashed" }));
      label({ x: box.right, y: height + 4 }, parent.name, box);
    }
    for (const point of all) {
      const spot = { point, x: x(point.n), y: y(point.s[0]) };
      targets.push(spot);
      mark(spot, data.choices.includes(point.n) ? "front" : "dominated");
    }
    const chosen = byNumber.get(state.picked);
    if (chosen) {
      const spot = { x: x(chosen.n), y: y(chosen.s[0]) };
      svg.append(make("line", { class: "whisker picked", x1: spot.x, x2: spot.x, y1: y(chosen.s[0] - chosen.e[0]), y2: y(chosen.s[0] + chosen.e[0]) }));
      ring(spot, 9, "var(--picked)");
    }
    if (state.hover) ring({ x: x(state.hover.n), y: y(state.hover.s[0]) }, 7, "var(--soft)");
  }

  function parallel(width, height) {
    const box = { left: 40, right: width - 46, top: 46, bottom: height - 34 };
    const at = (o) => box.left + (o * (box.right - box.left)) / (count - 1);
    const spans = data.objectives.map((objective, o) => (objective.sign < 0 ? extent(o).reverse() : extent(o)));
    const heights = spans.map(([low, high]) => scale(low, high, box.bottom, box.top));
    const room = (box.right - box.left) / (count - 1);
    const corners = (point) => point.s.map((value, o) => [at(o), heights[o](value)]);
    const path = (line) => "M" + line.map(([x, y]) => x.toFixed(1) + " " + y.toFixed(1)).join("L");
    const put = (point, style) => {
      const line = corners(point);
      targets.push({ point, line });
      svg.append(make("path", { d: path(line), fill: "none", ...style }));
    };
    const some = data.dots.filter((_, i) => i % Math.ceil(data.dots.length / 250) === 0); // more would hide the front
    for (const point of some) put(point, { stroke: "var(--dominated)", "stroke-opacity": 0.13 });
    const faint = Math.min(0.75, Math.max(0.18, 12 / data.front.length));
    for (const point of data.front) put(point, { stroke: "var(--front)", "stroke-opacity": faint, "stroke-width": 1.5, "stroke-dasharray": point.estimated ? "3 3" : null });
    for (const point of predicted()) put(point, { stroke: "var(--good)", "stroke-opacity": 0.9, "stroke-width": 1.6, "stroke-dasharray": "2 4" });
    for (const parent of data.parents) put(parent, { stroke: "var(--parent)", "stroke-dasharray": "7 4", "stroke-width": 1.6, "stroke-opacity": 0.75 });
    data.objectives.forEach((objective, o) => {
      const x = at(o), anchor = o === 0 ? "start" : o === count - 1 ? "end" : "middle";
      svg.append(make("line", { x1: x, x2: x, y1: box.top, y2: box.bottom, stroke: "var(--soft)" }));
      const letters = Math.max(6, Math.floor(room / 7.5));
      const name = objective.name.length > letters ? objective.name.slice(0, letters - 1) + "…" : objective.name;
      const title = make("text", { x: o === 0 ? 4 : o === count - 1 ? width - 4 : x, y: 16, "text-anchor": anchor, class: "title" }, name);
      title.append(make("title", {}, objective.name));
      svg.append(title);
      svg.append(make("text", { x: x, y: box.top - 8, "text-anchor": "middle" }, shown(spans[o][1], o)));
      svg.append(make("text", { x: x, y: box.bottom + 16, "text-anchor": "middle" }, shown(spans[o][0], o)));
    });
    const chosen = byNumber.get(state.picked);
    if (chosen) emphasised(chosen, corners(chosen), heights, path, at);
    if (state.hover) svg.append(make("path", { d: path(corners(state.hover)), fill: "none", stroke: "var(--soft)", "stroke-width": 3 }));
  }
  function emphasised(point, line, heights, path, at) {
    svg.append(make("path", { d: path(line), fill: "none", stroke: "var(--picked)", "stroke-width": 3, class: "ring" }));
    point.s.forEach((value, o) => {
      svg.append(make("line", { class: "whisker picked", x1: at(o), x2: at(o), y1: heights[o](value - point.e[o]), y2: heights[o](value + point.e[o]), "stroke-width": 5 }));
      const right = o === count - 1;
      const text = make("text", { x: at(o) + (right ? -8 : 8), y: heights[o](value) - 7, "text-anchor": right ? "end" : "start", class: "name", "paint-order": "stroke", stroke: "var(--card)", "stroke-width": 4 }, shown(value, o));
      svg.append(text);
    });
  }

  // --- pointing ------------------------------------------------------------------------------------------------
  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, closest = 26;
    for (const target of targets) {
      const away = target.line ? toLine(target.line, x, y) : Math.hypot(target.x - x, target.y - y);
      // a point on the front wins over a dominated one at the same distance
      const distance = away + (byNumber.get(target.point.n)?.kind === "dominated" ? 4 : 0);
      if (distance < closest) { closest = distance; best = target.point; }
    }
    return { point: best, x, y };
  }
  function toLine(line, x, y) {
    for (let i = 0; i + 1 < line.length; i++) {
      const [[x1, y1], [x2, y2]] = [line[i], line[i + 1]];
      if (x >= x1 && x <= x2) return Math.abs(y1 + ((y2 - y1) * (x - x1)) / (x2 - x1) - y);
    }
    return Infinity;
  }
  svg.addEventListener("pointermove", (event) => {
    const { point, x, y } = nearest(event);
    if (point !== state.hover) { state.hover = point; draw(); }
    tip.hidden = !point;
    if (!point) return;
    const described = (o, i) => o.name + ": " + (point.predicted === undefined ? withError(point, i) : shown(point.s[i], i) + ", 90% interval " + shown(point.low[i], i) + " to " + shown(point.high[i], i));
    tip.textContent = [nameOf(point) + (point.estimated ? ", estimated" : ""), ...data.objectives.map(described)].join("\n");
    tip.style.left = Math.max(4, Math.min(x + 18, svg.clientWidth - tip.offsetWidth - 4)) + "px";
    tip.style.top = Math.max(4, y + 24 + tip.offsetHeight > svg.clientHeight ? y - tip.offsetHeight - 12 : y + 24) + "px";
  });
  svg.addEventListener("pointerleave", () => { state.hover = null; tip.hidden = true; draw(); });
  svg.addEventListener("click", (event) => { const { point } = nearest(event); if (point && point.n !== undefined) pick(point.n); });

  // --- choosing ------------------------------------------------------------------------------------------------
  function pick(number, because) {
    state.picked = number;
    for (const row of document.querySelectorAll("#choices tbody tr")) {
      const on = Number(row.dataset.candidate) === number;
      row.classList.toggle("on", on);
      const radio = row.querySelector("input");
      radio.checked = on;
    }
    for (const button of document.querySelectorAll("[data-pick]")) button.classList.toggle("on", Number(button.dataset.pick) === number);
    draw();
    tell(number, because);
  }
  // The augmented Tchebycheff distance to the ideal point, as in evomerge export --pick "add=2,sort=1".
  function byPreference(weights) {
    const total = weights.reduce((a, b) => a + b, 0);
    if (!(total > 0)) return null;
    const rows = data.front.map((point) => point.s.map((value, o) => value * data.objectives[o].sign));
    const ideal = [], nadir = [];
    for (let o = 0; o < count; o++) { const column = rows.map((row) => row[o]); ideal.push(Math.max(...column)); nadir.push(Math.min(...column)); }
    const values = rows.map((row) => {
      const shortfall = row.map((value, o) => ((ideal[o] - value) / (ideal[o] > nadir[o] ? ideal[o] - nadir[o] : 1)) * (weights[o] / total));
      return -(Math.max(...shortfall) + 1e-4 * shortfall.reduce((a, b) => a + b, 0));
    });
    const best = Math.max(...values), slack = 1e-12 * Math.max(1, Math.abs(best));
    return data.front[values.findIndex((value) => value >= best - slack)].n;
  }
  function preferred() {
    const weights = [...document.querySelectorAll("[data-objective]")].map((slider) => Number(slider.value));
    weights.forEach((weight, o) => { document.getElementById("shown-" + o).textContent = String(weight); });
    const number = byPreference(weights);
    const words = data.objectives.map((o, i) => o.name + "=" + weights[i]).filter((_, i) => weights[i] > 0).join(",");
    if (number !== null) pick(number, "what suits " + words + " best");
  }

  // --- describing -------------------------------------------------------------------------------------------------
  function tell(number, because) {
    const point = byNumber.get(number), detail = data.details[String(number)];
    const chosen = document.getElementById("chosen");
    const words = [...(data.marks[String(number)] || []), ...(because ? [because] : [])];
    const parts = [make("h3", {}, "Candidate " + number)];
    if (words.length) parts.push(make("p", { class: "chips" }, words.join(" · ")));
    else if (point.kind === "dominated") parts.push(make("p", { class: "chips" }, count > 1 ? "dominated by another candidate" : ""));
    if (point.estimated) parts.push(make("p", { class: "chips" }, "estimated from few items"));
    parts.push(scores(point, detail));
    if (detail && detail.gain) parts.push(make("p", { class: "gain" }, detail.gain));
    parts.push(...takeaway(number));
    if (detail) parts.push(...recipe(detail));
    else parts.push(make("p", { class: "gain" }, "The recipe is not in this file; the command above writes it with --as recipe."));
    chosen.replaceChildren(...parts);
  }
  function scores(point, detail) {
    const held = detail && detail.held;
    const head = ["objective", "score", "95% interval", ...(held ? ["held-out"] : [])];
    const rows = data.objectives.map((o, i) => {
      const reach = 1.96 * point.e[i];
      const cells = [(point.estimated ? "~ " : "") + withError(point, i), reach === 0 ? "–" : shown(point.s[i] - reach, i) + " to " + shown(point.s[i] + reach, i)];
      if (held) cells.push(withError({ s: { [i]: held[2 * i] }, e: { [i]: held[2 * i + 1] } }, i));
      return make("tr", {}, make("th", { scope: "row" }, o.name), ...cells.map((text) => make("td", { class: "n" }, text)));
    });
    const titles = head.map((text, i) => make("th", { scope: "col", class: i ? "n" : null }, text));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, ...rows));
    return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores of the selected candidate" }, table);
  }
  const FORMS = [["hf", "model folder", ""], ["lora", "LoRA adapter", "-lora"], ["mergekit", "mergekit YAML", ".yaml"], ["recipe", "recipe", ".yaml"]];
  function takeaway(number) {
    const choice = make("select", { id: "form" }, ...FORMS.map(([value, text]) => make("option", { value }, text)));
    const line = make("p", { class: "command", id: "command" });
    const button = make("button", { type: "button", id: "copy" }, "Copy command");
    const write = () => {
      const ending = FORMS.find(([value]) => value === choice.value)[2];
      state.form = choice.value;
      line.textContent = "evomerge export " + data.folder + " --to candidate-" + number + ending + " --pick " + number + (choice.value === "hf" ? "" : " --as " + choice.value);
    };
    choice.value = state.form;
    choice.addEventListener("change", write);
    button.addEventListener("click", () => copy(line.textContent, button));
    write();
    return [make("div", { class: "take" }, make("label", { for: "form" }, "Export as"), choice, button), line];
  }
  function copy(text, button) {
    const before = button.textContent;
    const done = (word) => { button.textContent = word; setTimeout(() => { button.textContent = before; }, 1600); };
    const byHand = () => {
      const field = make("textarea", { "aria-hidden": "true", style: "position:fixed;opacity:0" });
      field.value = text;
      document.body.append(field);
      field.select();
      const worked = document.execCommand("copy");
      field.remove();
      done(worked ? "Copied" : "Press Ctrl+C");
    };
    if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(() => done("Copied"), byHand);
    else byHand();
  }

  // --- the recipe ----------------------------------------------------------------------------------------------
  function recipe(detail) {
    const parts = [];
    for (const one of detail.map.maps) parts.push(make("h4", {}, one.name + " by model and layer"), heat(one));
    if (detail.route) parts.push(make("h4", {}, "Route: source layer at each depth"), route(detail.route));
    const whole = detail.map.whole.map(([name, value]) => name + " " + value).join(", ");
    if (whole) parts.push(make("p", { class: "gain" }, "Everywhere: " + whole));
    const text = make("pre", { tabindex: 0, role: "region", "aria-label": "Recipe" }, make("code", {}, detail.yaml));
    const button = make("button", { type: "button" }, "Copy recipe");
    button.addEventListener("click", () => copy(detail.yaml, button));
    parts.push(make("details", {}, make("summary", {}, (detail.route ? "Recipe, digest " : "Recipe (mergekit YAML), digest ") + detail.digest.slice(0, 16)), text, button));
    return parts;
  }
  function heat(one) {
    const values = one.rows.flatMap((row) => row.values).filter((value) => value !== null);
    const low = Math.min(0, ...values), high = Math.max(0, ...values), far = Math.max(-low, high) || 1;
    const layers = one.rows[0].values.length, left = 92, width = 460, cell = (width - left) / layers, tall = 22;
    const box = make("svg", { viewBox: "0 0 " + width + " " + (one.rows.length * tall + 20), class: "heat", role: "img", "aria-label": one.name + " by model and layer: " + one.rows.map((row) => row.label + " " + row.values.join(" ")).join("; ") });
    one.rows.forEach((row, i) => {
      const name = row.label.length > 14 ? row.label.slice(0, 13) + "…" : row.label;
      box.append(make("text", { x: left - 8, y: i * tall + 15, "text-anchor": "end" }, name));
      row.values.forEach((value, layer) => {
        const fraction = value === null ? 0 : Math.abs(value) / far;
        const colour = value !== null && value < 0 ? "var(--front)" : "var(--parent)";
        const rect = make("rect", { x: left + layer * cell, y: i * tall, width: cell, height: tall, fill: colour, "fill-opacity": (0.06 + 0.9 * fraction).toFixed(3) });
        rect.append(make("title", {}, row.label + ", layer " + layer + ": " + value));
        box.append(rect);
        if (cell >= 30 && value !== null) box.append(make("text", { x: left + (layer + 0.5) * cell, y: i * tall + 15, "text-anchor": "middle", style: "fill:" + (fraction > 0.55 ? "var(--card)" : "var(--ink)") }, String(Number(value.toFixed(2)))));
      });
    });
    box.append(make("text", { x: left, y: one.rows.length * tall + 15 }, "layer 0"));
    box.append(make("text", { x: width, y: one.rows.length * tall + 15, "text-anchor": "end" }, "layer " + (layers - 1)));
    return box;
  }
  function route(hops) {
    const names = [...new Set(hops.map((hop) => hop[0]))], most = Math.max(...hops.map((hop) => hop[1])) || 1;
    const width = 460, tall = 150, left = 30, step = (width - left - 10) / Math.max(1, hops.length - 1);
    const colours = ["var(--parent)", "var(--front)", "var(--good)", "var(--soft)"];
    const box = make("svg", { viewBox: "0 0 " + width + " " + (tall + 44), class: "heat", role: "img", "aria-label": "Route: " + hops.map((hop) => hop[0] + " " + hop[1]).join(", ") });
    const spots = hops.map((hop, i) => [left + i * step, 8 + (1 - hop[1] / most) * (tall - 16)]);
    box.append(make("path", { d: "M" + spots.map((spot) => spot.join(" ")).join("L"), fill: "none", stroke: "var(--rule)", "stroke-width": 2 }));
    hops.forEach((hop, i) => {
      const dot = make("circle", { cx: spots[i][0], cy: spots[i][1], r: Math.max(2.5, Math.min(7, 5 * Math.sqrt(hop[2]))), fill: colours[names.indexOf(hop[0]) % colours.length] });
      dot.append(make("title", {}, "step " + i + ": " + hop[0] + " layer " + hop[1] + ", input scale " + hop[2]));
      box.append(dot);
    });
    names.forEach((name, i) => box.append(make("text", { x: left + i * 110, y: tall + 32, style: "fill:" + colours[i % colours.length] }, "● " + name)));
    return box;
  }

  // --- the page ------------------------------------------------------------------------------------------------
  function themes(button) {
    const order = ["", "light", "dark"], words = ["system setting", "light", "dark"];
    let now = 0;
    button.addEventListener("click", () => {
      now = (now + 1) % 3;
      if (order[now]) root.dataset.theme = order[now]; else delete root.dataset.theme;
      document.querySelector('meta[name="color-scheme"]').content = order[now] || "light dark";
      button.setAttribute("aria-label", "Colours: " + words[now]);
    });
  }
  const view = document.getElementById("view");
  if (view) {
    const [across, up] = [document.getElementById("axis-x"), document.getElementById("axis-y")];
    const change = () => {
      state.view = view.value;
      state.x = Number(across.value);
      state.y = Number(up.value);
      for (const part of document.querySelectorAll(".plane-only")) part.hidden = state.view !== "plane";
      draw();
    };
    for (const part of [view, across, up]) part.addEventListener("change", change);
    change();
  }
  const toggle = document.getElementById("show-predicted");
  if (toggle) toggle.addEventListener("change", () => { state.predicted = toggle.checked; draw(); });
  for (const slider of document.querySelectorAll("[data-objective]")) slider.addEventListener("input", preferred);
  for (const button of document.querySelectorAll("[data-pick]")) button.addEventListener("click", () => pick(Number(button.dataset.pick)));
  for (const radio of document.querySelectorAll("#choices input")) radio.addEventListener("change", () => pick(Number(radio.value)));
  window.addEventListener("resize", draw);
  pick(state.picked);
})();
