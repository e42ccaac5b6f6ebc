// A click, or Enter or Space, on a column's heading sorts by it; again, the other way round. What has no number is last.
for (const table of document.querySelectorAll("table")) {
  const body = table.querySelector("tbody[data-sorted]");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
    const compare = (one, other) => {
      const [a, b] = [one.cells[column], other.cells[column]];
      if (!("value" in a.dataset)) return way * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
      if (!a.dataset.value || !b.dataset.value) return (a.dataset.value ? 0 : 1) - (b.dataset.value ? 0 : 1);
      return way * (a.dataset.value - b.dataset.value);
    };
    body.append(...[...body.rows].sort(compare));
  }));
}
