// What all parts share: elements from data (texts only, so nothing is obeyed), and one floating note.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const note = make("div", { class: "tip", role: "tooltip", id: "tip", hidden: true });
document.body.append(note);

let noted = null;

// Shows content beside an element, inside the window.
function showNote(beside, ...content) {
  note.replaceChildren(...content);
  note.hidden = false;
  noted = beside;
  placeNote();
}

function placeNote() {
  if (!noted) return;
  const box = noted.getBoundingClientRect(), own = note.getBoundingClientRect();
  const wide = document.documentElement.clientWidth, tall = document.documentElement.clientHeight;
  if (box.bottom < 0 || box.top > tall) return hideNote();
  const right = box.right + 14 + own.width < wide;
  const x = right ? box.right + 14 : Math.max(8, Math.min(box.left - own.width - 14, wide - own.width - 8));
  const y = Math.max(8, Math.min(box.top - 20, tall - own.height - 8));
  note.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
}

function hideNote() {
  note.hidden = true;
  noted = null;
}

for (const type of ["pointerover", "focusin"]) {
  document.addEventListener(type, (event) => {
    const owner = event.target.closest?.("[data-tip]");
    if (owner) showNote(owner, owner.dataset.tip);
    else if (!event.target.closest?.(".tip, [data-point]")) hideNote();
  });
}
document.addEventListener("keydown", (event) => event.key === "Escape" && hideNote());
addEventListener("scroll", placeNote, { passive: true, capture: true });

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const old = button.dataset.label ?? button.textContent;
  button.dataset.label = old;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = old), 1200);
}
