// The race: lanes of one image each. A lane knows after which share of its time each step is done.
"use strict";

const WHOLE_S = 9; // what the slowest lane takes on the screen at speed 1
const STILL = matchMedia("(prefers-reduced-motion: reduce)"); // then lost draws are marked and don't fade
const FLASH = 0.02; // how long a lost draw glows, as a share of the slowest lane's time

class Lane {
  constructor(data) {
    this.data = data;
    this.canvas = make("canvas", { role: "img", "aria-label": `${data.name}, ${data.setting}` });
    this.steps = make("span", { class: "steps" });
    this.time = make("span", { class: "time" });
    this.element = make("div", { class: `lane k${data.owner}` }, make("strong", {}, data.name.replace(/ (\d+\))/g, "\u00a0$1")), make("small", {}, data.setting), this.canvas, make("p", {}, this.time, this.steps));
    this.image = new Image();
    this.image.src = DATA.sprites[data.sprite];
  }

  choose(image, timed) {
    this.which = image;
    this.seconds = this.data.seconds[timed];
    this.order = this.data.steps[image];
    this.count = this.data.count[image];
    this.lost = this.data.lost[image];
  }

  // When step number k, from 0, is done.
  doneAt(step) {
    const [before, behind] = this.data.share;
    return this.seconds * (before + Math.max(0, 1 - before - behind) * ((step + 1) / this.count));
  }

  draw(now, glow) {
    const { canvas, data } = this;
    if (!this.image.complete || !this.image.naturalWidth) return;
    const side = this.image.naturalHeight, wide = this.image.naturalWidth / data.columns;
    const scale = Math.max(1, Math.round(192 / side));
    if (canvas.width !== wide * scale) [canvas.width, canvas.height] = [wide * scale, side * scale];
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = side > 64;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const [rows, columns] = data.grid, w = wide / columns, h = side / rows;
    const box = (place) => [(place % columns) * w, Math.floor(place / columns) * h];
    let done = 0;
    this.order.forEach((step, place) => {
      if (this.doneAt(step) > now) return;
      const [x, y] = box(place);
      done = Math.max(done, step + 1);
      pen.drawImage(this.image, this.which * wide + x, y, w, h, x * scale, y * scale, w * scale, h * scale);
    });
    for (let at = 0; at < this.lost.length; at += 2) {
      const age = now - this.doneAt(this.lost[at]);
      if (age < 0 || age > glow) continue;
      const [x, y] = box(this.lost[at + 1]);
      pen.fillStyle = `rgba(245, 130, 32, ${STILL.matches ? 0.6 : 0.85 * (1 - age / glow)})`;
      pen.fillRect(x * scale, y * scale, w * scale, h * scale);
    }
    const finished = now >= this.seconds;
    this.element.classList.toggle("finished", finished);
    this.steps.textContent = `${finished ? this.count : done} / ${this.count} steps`;
    this.time.textContent = duration(this.seconds);
  }
}

class Race {
  constructor(block, parts) {
    this.form = block.querySelector(".race-controls");
    this.box = block.querySelector(".lanes");
    const lanes = parts.flatMap((part) => part.lanes).map((one) => new Lane(one));
    this.all = lanes;
    const { time, class: classes, timed } = this.form.elements;
    const times = [...new Set(lanes.flatMap((lane) => Object.keys(lane.data.seconds)))];
    timed.replaceChildren(...times.map((name) => new Option(name === "alone" ? "one image alone" : `an image in a ${name.replace(" ", " of ")}`, name)));
    const known = lanes[0].data.classes.filter((one) => lanes.some((lane) => lane.data.classes.includes(one)));
    classes.replaceChildren(...known.map((one) => new Option(one)));
    this.play = block.querySelector(".play");
    this.play.addEventListener("click", () => this.toggle());
    time.addEventListener("input", () => {
      this.pause();
      this.show();
    });
    const { every } = this.form.elements;
    every.closest("label").hidden = lanes.every((lane) => lane.data.first);
    for (const one of [classes, timed, every]) one.addEventListener("change", () => this.line());
    for (const lane of lanes) lane.image.decode().then(() => this.show(), () => {});
    this.line();
  }

  // The lanes that have the class and the time, fastest first.
  line() {
    const { class: classes, timed, every } = this.form.elements;
    this.lanes = this.all.filter((lane) => (every.checked || lane.data.first) && lane.data.classes.includes(classes.value) && lane.data.seconds[timed.value]);
    for (const lane of this.lanes) lane.choose(lane.data.classes.indexOf(classes.value), timed.value);
    this.lanes.sort((a, b) => a.seconds - b.seconds);
    this.longest = Math.max(...this.lanes.map((lane) => lane.seconds));
    this.box.replaceChildren(...this.lanes.map((lane) => lane.element));
    this.show();
  }

  show() {
    const { time } = this.form.elements;
    const now = (time.value / 1000) * this.longest;
    for (const lane of this.lanes) lane.draw(now, FLASH * this.longest);
    const pace = (WHOLE_S / this.longest) / this.form.elements.speed.value;
    this.form.querySelector(".clock").textContent = `${duration(now)} of ${duration(this.longest)}${this.running ? `, ${pace >= 1 ? `${plain(pace)} × slower` : `${plain(1 / pace)} × faster`} than real` : ""}`;
  }

  toggle() {
    if (this.running) this.pause();
    else this.run();
  }

  pause() {
    cancelAnimationFrame(this.running);
    this.running = null;
    this.play.textContent = "Play";
    this.play.setAttribute("aria-pressed", "false");
  }

  run() {
    const { time, speed } = this.form.elements;
    let share = Number(time.value) >= 1000 ? 0 : time.value / 1000, last = performance.now();
    const frame = (now) => {
      share = Math.min(1, share + ((now - last) / 1000 / WHOLE_S) * speed.value);
      last = now;
      time.value = share * 1000;
      this.running = share < 1 ? requestAnimationFrame(frame) : null;
      this.show();
      if (share >= 1) this.pause();
    };
    this.play.textContent = "Pause";
    this.play.setAttribute("aria-pressed", "true");
    this.running = requestAnimationFrame(frame);
  }
}

function duration(seconds) {
  return seconds < 1 ? `${+(seconds * 1000).toPrecision(3)} ms` : `${+seconds.toPrecision(3)} s`;
}

document.querySelectorAll(".facet").forEach((block, index) => {
  if (block.querySelector(".lanes")) new Race(block, DATA.facets[index]);
});
