"use strict";
// Draws the plots of the page. All their values come from the JSON in #charts; what they look like stands here.
const charts = JSON.parse(document.getElementById("charts").textContent);
const PRINTED = { width: 640, tall: 420, short: 240 }; // px of a page

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const narrow = matchMedia("(max-width: 40rem)").matches;
const MOST_TICKS = 8; // of those given, on a phone: more run into each other

function axis(more) {
  const title = more.title && { font: { size: 13 }, ...more.title };
  const every = narrow ? Math.ceil((more.tickvals || []).length / MOST_TICKS) : 1;
  const kept = (ticks) => ticks && ticks.filter((_, at) => at % every === 0);
  return { gridwidth: 1, zeroline: false, zerolinewidth: 2, automargin: true, fixedrange: false, ...more,
           title, tickvals: kept(more.tickvals), ticktext: kept(more.ticktext) };
}

function layout(more) {
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false, hovermode: "x unified",
    font: { family: "inherit", size: 13 }, margin: { l: narrow ? 44 : 60, r: 12, t: 8, b: 40 }, dragmode: "zoom", ...more,
  };
}

function traces(chart) {
  return chart.traces.map((one) => ({
    type: one.type || "scatter", mode: one.mode || "lines", name: one.name, x: one.x, y: one.y, customdata: one.labels,
    xaxis: "x", yaxis: one.axis || "y", visible: one.hidden ? false : true, fill: one.fill ? "tozeroy" : "none",
    fillcolor: one.fill ? colour(one.colour) + "33" : undefined, hovertemplate: one.hover,
    line: { color: colour(one.colour), width: one.width || 2, dash: one.dash || "solid", shape: one.shape || "linear" },
    marker: { color: colour(one.colour), size: one.sizes },
  }));
}

function draw(id, chart) {
  const div = document.getElementById(id);
  const axes = Object.fromEntries(Object.entries(chart.axes).map(([name, more]) => [name, axis(more)]));
  const buttons = ["select2d", "lasso2d", "toImage", "autoScale2d"];
  return Plotly.newPlot(div, traces(chart), layout({ ...axes, ...chart.layout }), {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: buttons,
  });
}

// A legend of our own: it can be used with the keyboard, and wraps on a phone.
function listen(id) {
  const form = document.querySelector(`fieldset[data-plot="${id}"]`);
  form.addEventListener("change", ({ target }) => {
    const div = document.getElementById(id);
    if (target.dataset.scale) {
      Plotly.relayout(div, { [`${target.dataset.scale}.type`]: target.checked ? "log" : "linear",
                             [`${target.dataset.scale}.autorange`]: true });
    } else {
      Plotly.restyle(div, { visible: target.checked }, target.dataset.traces.split(",").map(Number));
    }
  });
}

function printing(is) {
  for (const id of Object.keys(charts)) {
    const height = document.getElementById(id).classList.contains("tall") ? PRINTED.tall : PRINTED.short;
    Plotly.relayout(id, is ? { autosize: false, width: PRINTED.width, height }
                           : { autosize: true, width: null, height: null });
  }
}

const drawn = Promise.all(Object.entries(charts).map(([id, chart]) => { listen(id); return draw(id, chart); }));
drawn.then(() => { document.documentElement.dataset.drawn = "yes"; });
window.addEventListener("beforeprint", () => printing(true));
window.addEventListener("afterprint", () => printing(false));
