const buttons = [...document.querySelectorAll("nav button")];
const search = document.querySelector("nav input");
const shown = [...document.querySelectorAll("[data-verdict]")];
let verdict = "";

function filter() {
  const words = search.value.toLowerCase();
  for (const node of shown) {
    const fits = !verdict || node.dataset.verdict === verdict;
    node.hidden = !(fits && node.dataset.name.includes(words));
  }
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.show === verdict));
  }
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    verdict = button.dataset.show;
    filter();
  });
}
search.addEventListener("input", filter);
