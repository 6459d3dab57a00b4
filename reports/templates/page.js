// The page around the parts: which facet is shown, tabs, commands to copy.
"use strict";

const blocks = [...document.querySelectorAll(".facet")];

function showFacet(number) {
  blocks.forEach((block, index) => (block.hidden = index !== number));
  document.querySelectorAll("nav [data-part]").forEach((link) => link.setAttribute("href", `#${link.dataset.part}-${number}`));
  dispatchEvent(new Event("resize"));
}

const facetChoice = document.getElementById("facet");
if (facetChoice) {
  facetChoice.addEventListener("change", () => showFacet(Number(facetChoice.value)));
  showFacet(0);
}

for (const tabs of document.querySelectorAll(".tabs")) {
  const buttons = [...tabs.querySelectorAll("[role=tab]")], panels = [...tabs.querySelectorAll("[role=tabpanel]")];
  const choose = (chosen) => {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", index === chosen);
      button.tabIndex = index === chosen ? 0 : -1;
      panels[index].hidden = index !== chosen;
    });
  };
  buttons.forEach((button, index) => {
    button.addEventListener("click", () => choose(index));
    button.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      const next = (index + move + buttons.length) % buttons.length;
      choose(next);
      buttons[next].focus();
    });
  });
  choose(0);
}

for (const code of document.querySelectorAll("code.copy")) {
  const button = make("button", { type: "button", class: "copier", onclick: () => copy(code.textContent, button) }, "Copy");
  code.after(" ", button);
}
