"use strict";
(() => {
  const unpacked = async (id) => {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
  };

  // What stands packed in the page is run as if it stood there as it is.
  const load = async (id) => {
    const script = document.createElement("script");
    script.textContent = await (await unpacked(id)).text();
    document.head.append(script);
  };

  const charts = JSON.parse(document.getElementById("charts").textContent);
  const drawn = [];

  // Colours stand in the specifications as "@name": the page's own variable of that name.
  const coloured = (value, style) => {
    if (typeof value === "string" && value.startsWith("@"))
      return style.getPropertyValue("--" + value.slice(1)).trim();
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value && typeof value === "object")
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
    return value;
  };

  const theme = (style) => {
    const of = (name) => style.getPropertyValue("--" + name).trim();
    const words = { labelColor: of("soft"), titleColor: of("soft"), labelFontSize: 12, labelOverlap: true, titleFontSize: 12 };
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      axis: { ...words, gridColor: of("line"), domainColor: of("faint"), tickColor: of("faint"), titleFontWeight: "normal" },
      legend: { ...words, orient: "bottom", symbolLimit: 12, columns: 4, titleFontWeight: "normal" },
      view: { stroke: null },
    };
  };

  // Small multiples cannot follow their container, so they are given its width.
  const fitted = (specification, width) =>
    specification.vconcat
      ? { ...specification, width: undefined,
          vconcat: specification.vconcat.map((panel) => ({ ...panel, width: Math.max(120, width - 90) })) }
      : specification;

  const draw = async (place) => {
    const { specification, fields, rows } = charts[place.id];
    const style = getComputedStyle(document.documentElement);
    const values = rows.map((row) => Object.fromEntries(fields.map((name, at) => [name, row[at]])));
    const lite = coloured(fitted(specification, place.clientWidth), style);
    const compiled = vegaLite.compile({ ...lite, datasets: { rows: values }, config: theme(style) }).spec;
    place.replaceChildren();
    const view = new vega.View(vega.parse(compiled), { renderer: "svg", container: place, hover: true });
    await view.runAsync();
    drawn.push(view);
  };

  const drawAll = async () => {
    drawn.splice(0).forEach((view) => view.finalize());
    for (const place of document.querySelectorAll(".chart")) await draw(place);
    document.documentElement.dataset.drawn = "yes";
  };

  const redraw = () => drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", redraw);

  const save = document.getElementById("save");
  save.hidden = false;
  save.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await (await unpacked("ledger")).blob());
    link.download = "ledger.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  load("vega").then(() => load("vega-lite")).then(drawAll);
})();
