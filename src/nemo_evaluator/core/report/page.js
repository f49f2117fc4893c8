"use strict";
(() => {
  const prepare = (section) => {
    const controls = section.querySelector(".controls");
    const search = controls.querySelector("input");
    const kind = controls.querySelector("select");
    const count = controls.querySelector("[role=status]");
    const entries = Array.from(section.querySelectorAll("details.sample"));
    const texts = entries.map((entry) => entry.textContent.toLowerCase());
    const apply = () => {
      const wanted = search.value.trim().toLowerCase();
      let matching = 0;
      entries.forEach((entry, index) => {
        const fits = (kind.value === "" || ` ${entry.dataset.kind} `.includes(` ${kind.value} `))
          && texts[index].includes(wanted);
        entry.hidden = !fits;
        matching += fits;
      });
      count.textContent = `${matching} of ${entries.length} match`;
    };
    controls.hidden = false;
    search.addEventListener("input", apply);
    kind.addEventListener("change", apply);
    apply();
  };
  const open = () => {
    const entry = document.getElementById(location.hash.slice(1));
    if (entry && entry.tagName === "DETAILS") {
      entry.hidden = false;
      entry.open = true;
      entry.scrollIntoView();
    }
  };
  document.querySelectorAll("section.filtered").forEach(prepare);
  window.addEventListener("hashchange", open);
  open();
})();
