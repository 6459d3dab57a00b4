// The interactive picture: a metric against what it costs. A point shows its card; a click keeps the card.
"use strict";

// matplotlib's markers. Polygons of n corners point at an angle; d3 has the others.
const polygon = (corners, angle) => ({
  draw(pen, size) {
    const radius = Math.sqrt(size / Math.PI) * (corners === 3 ? 1.45 : 1.15);
    for (let at = 0; at < corners; at++) {
      const turn = (angle / 180 + (2 * at) / corners) * Math.PI;
      pen[at ? "lineTo" : "moveTo"](radius * Math.cos(turn), radius * Math.sin(turn));
    }
    pen.closePath();
  },
});
const MARKERS = {
  o: "circle", s: "square", D: "diamond", P: "cross", X: "wye", "*": "star", d: "diamond2",
  "^": polygon(3, -90), v: polygon(3, 90), "<": polygon(3, 180), ">": polygon(3, 0), p: polygon(5, -90), h: polygon(6, -90),
};
const MOST_LABELS = 24;
const LABEL_HEIGHT = 15;
const MARGIN_LEFT = 52; // where ticks have their numbers
const MARGIN_TOP = 28, MARGIN_BOTTOM = 50;
const NARROW = 560; // up to this width names of anchors stand inside the frame

class Chart {
  constructor(block, parts) {
    this.parts = parts;
    this.form = block.querySelector(".chart-controls");
    this.box = block.querySelector(".chart");
    this.pins = block.querySelector(".pins");
    this.pinned = new Set();
    const { part } = this.form.elements;
    part.replaceChildren(...parts.map((one, index) => new Option(one.name || "all", index)));
    part.closest("label").hidden = parts.length < 2;
    this.choosePart();
    this.form.addEventListener("change", (event) => {
      if (event.target === part) this.choosePart();
      this.draw();
    });
    new ResizeObserver(() => this.box.clientWidth !== this.width && this.draw()).observe(this.box);
  }

  choosePart() {
    this.data = this.parts[this.form.elements.part.value].points;
    const { metric, published } = this.form.elements;
    metric.replaceChildren(...this.data.metrics.map((one) => new Option(one.name)));
    published.closest("label").hidden = !this.data.published.length;
    if (this.data.metrics[0].name === DATA.axes[0].title) this.form.elements.x.value = "steps";
  }

  // What is drawn: cells with both numbers, and the ends of their bars.
  points(axis, metric) {
    return this.data.cells
      .filter((cell) => cell.x[axis.id] && cell.y[metric])
      .map((cell) => {
        const [x, x1, x2] = cell.x[axis.id], [y, y1, y2] = cell.y[metric];
        return { cell, x, x1, x2, y, y1, y2, owner: cell.owner };
      });
  }

  draw() {
    hideNote();
    this.width = this.box.clientWidth;
    if (!this.width) return;
    const fields = this.form.elements;
    const axis = DATA.axes.find((one) => one.id === fields.x.value);
    const metric = this.data.metrics.find((one) => one.name === fields.metric.value);
    const points = metric ? this.points(axis, metric.name) : [];
    if (!points.length) {
      this.box.replaceChildren(make("p", { class: "empty" }, metric ? `No cell has a figure for ${axis.title}.` : "No cell has a quality."));
      return;
    }
    const printed = fields.published.checked
      ? this.data.published.filter((one) => one.metric === metric.name && one.axis === axis.id) : [];
    const anchors = d3.sort(this.data.anchors.filter((one) => one.y[metric.name]), (one) => -one.y[metric.name][0]);
    const svg = Plot.plot(this.options(axis, metric, points, printed, anchors, fields));
    svg.setAttribute("aria-label", `${metric.name} against ${axis.title}`);
    this.box.replaceChildren(svg);
    this.enliven(svg, points, axis, metric);
    pushApart([...svg.querySelectorAll(".anchors text")]);
    placeLabels(svg, points.map((point) => this.labelOf(point, points)));
  }

  options(axis, metric, points, printed, anchors, fields) {
    const narrow = this.width < NARROW, height = narrow ? 380 : 480, marginRight = narrow ? 16 : 120;
    const values = [...points.map((one) => one.y), ...anchors.map((one) => one.y[metric.name][0]), ...printed.map((one) => one.y)];
    const xs = [...points.map((one) => one.x), ...printed.map((one) => one.x)];
    const ends = points.flatMap((one) => [one.y1 ?? one.y, one.y2 ?? one.y]);
    const lowest = Math.min(...values), tall = metric.lower && lowest > 0 && Math.max(...values) > 8 * lowest;
    const room = Math.max((Math.max(...xs) / Math.min(...xs)) ** 0.1, 1.15);
    const [left, right] = [Math.min(...xs) / room, Math.max(...xs) * room];
    // An interval that comes near nothing would leave no room for the others.
    const [low, high] = [Math.max(Math.min(...values, ...ends), lowest / 3) / 1.15, Math.max(...values, ...ends) * 1.15];
    const across = decades([left, right], keepApart(left, right, this.width - MARGIN_LEFT - marginRight, true));
    const up = tall ? decades([low, high], keepApart(low, high, height - MARGIN_TOP - MARGIN_BOTTOM, false)) : null;
    const lines = d3.groups(points, (one) => one.cell.series).flatMap(([, own]) => d3.sort(own, (one) => one.x));
    const colour = (one) => `var(--own-${one.owner})`;
    const sideways = { label: `${axis.title}${axis.unit ? `, ${axis.unit}` : ""} (log scale${axis.more ? "" : ", less is better"})`, labelArrow: "none", labelAnchor: "center", labelOffset: 40 };
    const upwards = { label: `${metric.name}, ${metric.lower ? "lower" : "higher"} is better${tall ? " (log scale)" : ""}`, labelArrow: "none" };
    return {
      width: this.width, height,
      marginLeft: MARGIN_LEFT, marginRight, marginBottom: MARGIN_BOTTOM, marginTop: MARGIN_TOP,
      style: { background: "none", color: "var(--ink)", fontSize: "12px", fontFamily: "inherit", overflow: "visible" },
      x: { type: "log", domain: [left, right] },
      y: { ...(tall ? { type: "log", domain: [low, high] } : { domain: padded([...values, ...ends]), nice: true, grid: true, ticks: 6, tickFormat: plain, ...upwards }) },
      marks: [
        // Given as a scale's ticks, those at 5 would lose their numbers.
        Plot.gridX(across), Plot.axisX(across, { text: plain, ...sideways }),
        ...(up ? [Plot.gridY(up), Plot.axisY(up, { text: plain, ...upwards })] : []),
        ...anchors.map((one) => Plot.ruleY([one.y[metric.name][0]], { stroke: "var(--soft)", strokeDasharray: "5 4" })),
        Plot.text(anchors, { y: (one) => one.y[metric.name][0], text: "label", frameAnchor: narrow ? "left" : "right", textAnchor: "start", dx: 6, dy: narrow ? -7 : 0, fill: "var(--muted)", stroke: "var(--paper)", strokeWidth: 3, className: "anchors" }),
        fields.front.checked ? Plot.line(frontOf(points, axis.more, !metric.lower), { x: "x", y: "y", curve: axis.more ? "step-before" : "step-after", stroke: "var(--front)", strokeWidth: 5, strokeLinejoin: "round", className: "front" }) : null,
        Plot.line(lines, { x: "x", y: "y", z: (one) => one.cell.series, stroke: colour, strokeOpacity: 0.55, strokeDasharray: (one) => (one.cell.variant ? "4 3" : null), className: "series" }),
        ...(fields.bars.checked ? [
          Plot.ruleX(points.filter((one) => one.y1 !== null), { x: "x", y1: (one) => (tall ? Math.max(one.y1, low) : one.y1), y2: "y2", stroke: colour, strokeOpacity: 0.8, clip: true, className: "bar" }),
          Plot.ruleY(points.filter((one) => one.x1 !== null && one.x1 !== undefined), { y: "y", x1: "x1", x2: "x2", stroke: colour, strokeOpacity: 0.8, clip: true, className: "bar" }),
        ] : []),
        Plot.dot(printed, { x: "x", y: "y", symbol: "star", r: 7, stroke: colour, fill: "var(--paper)", title: (one) => `${one.name}, as printed`, className: "printed" }),
        Plot.dot(points, { x: "x", y: "y", r: 5.5, symbol: (one) => MARKERS[DATA.markers[one.owner]], stroke: colour, strokeWidth: 1.8, fill: (one) => (one.cell.variant ? "var(--paper)" : colour(one)), className: "points" }),
      ],
      symbol: { type: "identity" },
    };
  }

  // A family's name at its worst point, and the steps of its others where there is room for so many.
  labelOf(point, points) {
    const kin = points.filter((one) => one.cell.family === point.cell.family);
    const named = d3.greatest(kin, (one) => Math.abs(one.y)) === point;
    const steps = points.length <= MOST_LABELS && kin.length > 1 && point.cell.x.steps ? plain(point.cell.x.steps[0]) : "";
    const parts = named ? [point.cell.family, steps && `${steps} steps`] : [steps];
    return { point, text: parts.filter(Boolean).join(", "), bold: named };
  }

  // Points take focus, show their card and are kept by click or Enter.
  enliven(svg, points) {
    for (const mark of svg.querySelectorAll(".points > *")) {
      const point = points[mark.__data__], { cell } = point;
      mark.dataset.point = cell.key;
      mark.setAttribute("tabindex", 0);
      mark.setAttribute("role", "button");
      mark.setAttribute("aria-label", `${cell.name}: ${cell.texts.map((pair) => pair.join(" ")).join(", ")}`);
      const keep = () => this.pin(cell);
      mark.addEventListener("pointerenter", () => showNote(mark, this.card(cell)));
      mark.addEventListener("focus", () => showNote(mark, this.card(cell)));
      mark.addEventListener("pointerleave", hideNote);
      mark.addEventListener("blur", hideNote);
      mark.addEventListener("click", keep);
      mark.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        keep();
      });
    }
  }

  card(cell) {
    const rows = cell.texts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)));
    const card = make("div", { class: `card-of k${cell.owner}` }, make("strong", {}, cell.name), make("dl", {}, ...rows));
    if (cell.sprite) card.append(make("img", { src: DATA.sprites[cell.sprite], alt: `Samples of classes ${cell.classes.join(", ")}` }));
    return card;
  }

  pin(cell) {
    if (this.pinned.has(cell.key)) return;
    this.pinned.add(cell.key);
    const card = this.card(cell);
    card.prepend(make("button", { type: "button", class: "close", "aria-label": `Remove ${cell.name}`, onclick: () => {
      this.pinned.delete(cell.key);
      card.remove();
    } }, "×"));
    this.pins.append(card);
  }
}

// The least and the largest value with some room, in which no point lies on the frame.
function padded(values) {
  const [least, most] = d3.extent(values), room = 0.04 * (most - least || Math.abs(most) || 1);
  return [least - room, most + room];
}

// Points that no other equals in both numbers and beats in one, by rising x.
function frontOf(points, moreX, moreY) {
  const gain = (one) => [moreX ? one.x : -one.x, moreY ? one.y : -one.y];
  const beats = ([a, b], [c, d]) => a >= c && b >= d && (a > c || b > d);
  const kept = points.filter((one) => !points.some((other) => beats(gain(other), gain(one))));
  return d3.sort(kept, (one) => one.x);
}

// Texts under one another, each as near to its place as the others let it be.
function pushApart(texts) {
  const tops = texts.map((one) => one.getBoundingClientRect().top), order = d3.sort(d3.range(texts.length), (at) => tops[at]);
  let free = -Infinity;
  const moved = order.map((at) => (free = Math.max(tops[at], free + LABEL_HEIGHT - 1)));
  const shift = d3.mean(order, (at, index) => moved[index] - tops[at]);
  order.forEach((at, index) => texts[at].setAttribute("transform", `${texts[at].getAttribute("transform") ?? ""} translate(0,${moved[index] - tops[at] - shift})`));
}

// Labels at the first free place around their point; those that find none are left to the point's card.
function placeLabels(svg, labels) {
  const marks = [...svg.querySelectorAll(".points > *")], frame = svg.getBoundingClientRect();
  const centre = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.x + box.width / 2 - frame.x, box.y + box.height / 2 - frame.y];
  };
  const centres = new Map(marks.map((mark) => [mark.__data__, centre(mark)]));
  const taken = [...centres.values()].map(([x, y]) => [x - 7, y - 7, x + 7, y + 7]);
  for (const name of svg.querySelectorAll(".anchors text")) {
    const box = name.getBoundingClientRect();
    taken.push([box.left - frame.x, box.top - frame.y, box.right - frame.x, box.bottom - frame.y]);
  }
  const layer = d3.select(svg).append("g").attr("class", "labels").attr("aria-hidden", "true");
  labels.map((label, index) => ({ ...label, at: centres.get(index) })).filter((one) => one.at && one.text)
    .sort((a, b) => b.bold - a.bold)
    .forEach(({ at: [x, y], text, bold, point }) => {
      const mark = layer.append("text").attr("font-weight", bold ? 600 : 400).text(text);
      const width = mark.node().getComputedTextLength() + 2, height = LABEL_HEIGHT;
      const places = [10, 18, 28].flatMap((far) => [[far - 2, -far - 7], [-far - width + 2, -far - 7], [far - 2, far - 8], [-far - width + 2, far - 8], [far, -height / 2], [-far - width, -height / 2], [-width / 2, -far - height + 2], [-width / 2, far - 2]]);
      const free = places.map(([dx, dy]) => [x + dx, y + dy, x + dx + width, y + dy + height])
        .find((box) => box[0] > MARGIN_LEFT && box[2] < frame.width && box[1] > 0 && !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]));
      if (!free) return mark.remove();
      taken.push(free);
      mark.attr("x", (free[0] + free[2]) / 2).attr("y", free[1] + height - 4).attr("text-anchor", "middle").attr("class", `k${point.owner}`);
    });
}

document.querySelectorAll(".facet").forEach((block, index) => {
  if (block.querySelector(".chart")) new Chart(block, DATA.facets[index]).draw();
});
