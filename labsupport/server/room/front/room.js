// The engine room: what an inference engine does, step by step, as pictures and as tables.
//
// One module for the page at `/` and for the notebook's widget. It is handed frames (labsupport/server/room/
// frame.py says what is in one) and fetches nothing itself. Right means that it says the same to everybody:
// what the pictures show by pattern and place is in the tables as words and numbers, nothing is said by
// colour alone, nothing flashes, and only a change of the engine's state is announced.

const SVG = "http://www.w3.org/2000/svg";
const TABLES_EVERY_MILLISECONDS = 1000; // as fast as numbers can be read
const CHARACTER = 6.7; // pixels of one character of a label, about
const STATES = {
  ready: "The engine is ready.",
  loading: "The engine is loading its model.",
  restarting: "The engine is not heard from: it is being started again, or one step takes very long.",
  stopping: "The server is shutting down: it finishes the answers in progress and takes no new ones.",
  connecting: "The server is trying to reach its upstream.",
  unreachable: "The upstream cannot be reached.",
  failing: "The upstream answers with errors.",
  key_refused: "The upstream refuses this server's key.",
  lost: "No connection to the server. Trying again every second.",
};

let rooms = 0;

/** For anywidget: `frame` is the model's newest frame, {} before the first; `said` is why there is no newer. */
export default {
  render({ model, el }) {
    const room = mount(el, { level: 3 });
    const draw = () => {
      const frame = model.get("frame");
      if (frame.status) room.show(frame);
      if (frame.said) room.say(frame.said);
    };
    model.on("change:frame", draw);
    draw();
    return () => {
      model.off("change:frame", draw);
      room.close();
    };
  },
};

/**
 * Build an empty room in `root`, whose headings begin at a level of 1 to 5.
 *
 * `show` draws a frame, `lose` says that none come, `say` says anything else in their place.
 */
export function mount(root, { level = 1 } = {}) {
  const id = `engine-room-${++rooms}`;
  const view = build(root, id, level);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let frame = null;
  let isPaused = false;
  let asked = 0;
  let drawn = -Infinity;
  let tabled = -Infinity;

  const draw = (now) => {
    asked = 0;
    if (!frame || isPaused) return;
    if (now - tabled >= TABLES_EVERY_MILLISECONDS) {
      tabled = now;
      fillTables(view, frame);
    }
    if (!calm.matches || now - drawn >= TABLES_EVERY_MILLISECONDS) {
      drawn = now;
      drawPictures(view, frame, id);
      view.root.dataset.frames = Number(view.root.dataset.frames ?? 0) + 1;
    }
  };
  const ask = () => {
    asked ||= requestAnimationFrame(draw); // never in a page that nobody sees
  };
  const resized = new ResizeObserver(ask);
  resized.observe(view.root);
  view.pause.onclick = () => {
    isPaused = !isPaused;
    view.pause.setAttribute("aria-pressed", isPaused);
    ask();
  };

  return {
    show(next) {
      const isNews = next.status !== frame?.status || view.root.dataset.state !== next.status;
      frame = next;
      if (isNews) {
        tabled = drawn = -Infinity;
        announce(view, next.status, STATES[next.status] ?? next.status);
      }
      ask();
    },
    lose: () => announce(view, "lost", STATES.lost),
    say: (words) => announce(view, "lost", words),
    close() {
      cancelAnimationFrame(asked);
      resized.disconnect();
    },
  };
}

function announce(view, state, words) {
  view.root.dataset.state = state;
  setText(view.state, words);
}

// The parts

function build(root, id, level) {
  root.classList.add("engine-room");
  const view = { root, pictures: {}, level };
  view.title = html(`h${level}`, { class: "title" }, "Engine room");
  view.state = html("p", { class: "state", role: "status" });
  view.pause = html("button", { type: "button", "aria-pressed": "false" }, "Pause the picture");
  view.tiles = html("dl", { class: "tiles", "aria-label": "Now" });
  view.elsewhere = html(
    "p",
    { class: "elsewhere", hidden: "" },
    "Another server does the work (--engine upstream), and nobody can look into it from here. Known are the " +
      "requests that are with it or wait for their turn, and what its answers report: tokens are counted when " +
      "an answer says how many it had, so often only at its end.",
  );
  const cells = figure(view, id, "cells", "KV cells, by sequence",
    "Each line is a sequence, from its first token on. A prefix that several have in common is there once, " +
      "across all their lines. What a finished request leaves is kept, as long as nobody needs the room.");
  const figures = [
    figure(view, id, "batch", "The batch",
      "Continuous batching: each line is a slot, and a request takes the first that is free. Its prompt is " +
        "computed in chunks (striped), then it draws one token per step (solid) until it is done and leaves."),
    figure(view, id, "steps", "The last steps",
      "Each column is one step of the model, for all slots at once: first one token for every request that " +
        "is decoding, then as much of the prompts as the step's budget has room for."),
    figure(view, id, "minute", "The last minute", "Tokens in each second, as far as somebody was watching."),
  ];
  view.requests = table("Requests, running and waiting", [
    "Request", "State", "Slot", "Prompt tokens computed", "Generated", "In the last step", "Cells", "Shares cells with",
  ]);
  view.holdings = table("KV cells, by who holds them", ["Held by", "Cells", "From token", "State"]);
  root.replaceChildren(
    patterns(id),
    html("header", {}, view.title, view.pause),
    view.state,
    view.tiles,
    view.elsewhere,
    html("div", { class: "pictures" }, html("div", {}, ...figures), cells),
    html("div", { class: "tables" }, view.requests.whole, view.holdings.whole),
    html("p", { class: "privacy" },
      "No prompt and no answer comes to this page: only counts, lengths and times. A request is named by six " +
        "characters of its id."),
  );
  return view;
}

function figure(view, id, name, title, caption) {
  const picture = svg("svg", { role: "img", "aria-labelledby": `${id}-${name}`, height: 40 });
  view.pictures[name] = picture;
  view[`${name}Words`] = html("p", { class: "words" });
  return html(
    "figure", { class: name },
    html("figcaption", {}, html(`h${view.level + 1}`, { id: `${id}-${name}` }, title), html("p", {}, caption)),
    picture,
    view[`${name}Words`],
  );
}

function table(caption, headings) {
  const body = html("tbody");
  const head = html("tr", {}, ...headings.map((heading) => html("th", { scope: "col" }, heading)));
  const whole = html(
    "div", { class: "scroller", role: "region", tabindex: "0", "aria-label": caption },
    html("table", {}, html("caption", {}, caption), html("thead", {}, head), body),
  );
  return { whole, body };
}

/** Fill a table's body in place, so that whoever reads it is not thrown out of it. */
function fillRows(body, rows, empty) {
  const wanted = rows.length ? rows : [[empty]];
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((values, index) => {
    const row = body.rows[index] ?? body.insertRow();
    while (row.cells.length > values.length) row.deleteCell(-1);
    values.forEach((value, column) => setText(row.cells[column] ?? row.insertCell(), String(value)));
  });
}

// Numbers and words, once a second

function fillTables(view, frame) {
  const { engine, minute } = frame;
  setText(view.title, `Engine room: ${frame.model}`);
  view.root.classList.toggle("blind", !frame.has_engine);
  view.elsewhere.hidden = frame.has_engine;
  const tiles = [
    ["Running", engine ? `${frame.running} of ${engine.slots}` : frame.running],
    ["Waiting", frame.waiting],
    ["Generated", `${number(minute.generated_rate)} tokens/s`],
    ["Prompts", `${number(minute.prompt_rate)} tokens/s`],
    ["Time to first token (TTFT)", latency(minute.first_token)],
    ["Between tokens (ITL)", latency(minute.between_tokens)],
  ];
  if (engine) {
    const free = engine.total_cells - engine.used_cells - engine.cached_cells;
    tiles.push(["KV cells", `${number(engine.used_cells)} used`,
      `${number(engine.cached_cells)} kept, ${number(free)} free`]);
  }
  if (frame.restarts) tiles.push(["Restarts", frame.restarts]);
  fillTiles(view.tiles, tiles);
  setText(view.batchWords, engine ? batchInWords(frame) : "");
  setText(view.stepsWords, engine ? stepInWords(engine) : "");
  fillRows(view.requests.body, requestRows(engine), "no request");
  fillRows(view.holdings.body, holdingRows(engine), "no cell is held");
}

function fillTiles(list, tiles) {
  while (list.children.length > tiles.length) list.lastChild.remove();
  tiles.forEach(([name, value, more], index) => {
    const tile = list.children[index] ??
      list.appendChild(html("div", {}, html("dt"), html("dd", {}, html("span"), html("small"))));
    setText(tile.children[0], name);
    const [first, ...rest] = Array.isArray(value) ? value : [String(value), more ?? ""];
    setText(tile.children[1].children[0], first);
    setText(tile.children[1].children[1], rest.join(""));
  });
}

function batchInWords({ running, waiting, engine }) {
  const prompts = engine.running.filter((one) => one.phase === "prompt").length;
  const oldest = Math.max(0, ...engine.waiting.map((one) => one.waited_seconds));
  const queue = waiting ? `${waiting} waiting, the longest for ${oldest.toFixed(1)} s.` : "Nobody waits.";
  return `${running} of ${engine.slots} slots taken: ${prompts} on their prompt, ${running - prompts} decoding. ${queue}`;
}

function stepInWords({ steps, step_tokens }) {
  if (!steps.length) return `No step yet. A step has room for ${step_tokens} tokens.`;
  const [decodes, prompt, again] = steps.at(-1);
  const lost = again ? `, ${count(again, "token")} computed again` : "";
  return `Newest step: ${count(decodes, "token")} drawn, ${count(prompt, "token")} of prompts${lost}. A step has room ` +
    `for ${step_tokens}.`;
}

function requestRows(engine) {
  if (!engine) return [];
  const running = engine.running.toSorted((one, other) => one.slot - other.slot).map((one) => {
    const held = engine.segments.filter((segment) => segment.holders.includes(one.name));
    const others = new Set(held.flatMap((segment) => segment.holders));
    others.delete(one.name);
    const done = Math.min(one.computed_tokens, one.prompt_tokens);
    const cached = one.cached_tokens ? ` (${number(one.cached_tokens)} from the cache)` : "";
    return [
      one.name, one.phase === "prompt" ? "prompt" : "decoding", one.slot,
      `${number(done)} of ${number(one.prompt_tokens)}${cached}`,
      `${number(one.generated_tokens)} of at most ${number(one.max_tokens)}`,
      number(one.step_tokens), number(total(held)), others.size ? inWords([...others]) : "nobody",
    ];
  });
  const waiting = engine.waiting.map((one) => [
    one.name, `waiting for ${one.waited_seconds.toFixed(1)} s`, "none", `0 of ${number(one.prompt_tokens)}`,
    one.generated_tokens ? `${number(one.generated_tokens)}, then it had to give way` : "0", "0", "0", "nobody",
  ]);
  const more = engine.num_waiting - engine.waiting.length;
  if (more > 0) waiting.push([`and ${more} more`, "waiting", "none", "", "", "", "", ""]);
  return [...running, ...waiting];
}

function holdingRows(engine) {
  const [kept, used] = [true, false].map((is) => (engine?.segments ?? []).filter((one) => one.is_kept === is));
  const rows = used.map((one) => [
    inWords(one.holders), number(one.cells), number(one.start), one.holders.length > 1 ? "in use, shared" : "in use",
  ]);
  if (kept.length) {
    const holders = [...new Set(kept.flatMap((one) => one.holders))];
    rows.push([inWords(holders), number(total(kept)), "", "kept, for who begins alike"]);
  }
  return rows;
}

/** Holders' names, those of kept prefixes as their number alone. */
function inWords(holders) {
  const names = holders.filter((name) => !name.startsWith("kept "));
  const kept = holders.length - names.length;
  if (kept) names.push(count(kept, "kept prefix", "kept prefixes"));
  return names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names.join("");
}

// Pictures, every frame

function drawPictures(view, frame, id) {
  const { engine } = frame;
  if (engine) {
    drawBatch(view.pictures.batch, frame, id);
    drawCells(view.pictures.cells, engine, id);
    drawSteps(view.pictures.steps, engine, id);
  } else {
    for (const name of ["batch", "cells", "steps"]) view.pictures[name].replaceChildren();
  }
  drawMinute(view.pictures.minute, frame.minute, id);
}

function drawBatch(picture, { engine, waiting }, id) {
  const width = widthOf(picture);
  const [left, right, line, top] = [26, 190, 18, 20];
  const bySlot = new Map(engine.running.map((one) => [one.slot, one]));
  const lines = Math.min(engine.slots, Math.max(16, ...engine.running.map((one) => one.slot + 1)));
  const longest = Math.max(64, ...engine.running.map((one) => one.prompt_tokens + one.max_tokens));
  const scale = (width - left - right) / longest;
  const shapes = legend(0, [
    [`url(#${id}-shared)`, "prompt from the cache"], [`url(#${id}-prompt)`, "prompt computed"],
    ["var(--room-solid)", "generated"], ["none", "still to come"],
  ]);
  for (let slot = 0; slot < lines; slot++) {
    const y = top + slot * line;
    const one = bySlot.get(slot);
    shapes.push(label(left - 6, y + 12, slot, { "text-anchor": "end", class: "quiet" }));
    if (!one) {
      shapes.push(svg("line", { class: "rule", x1: left, x2: width - right, y1: y + 8, y2: y + 8 }));
      continue;
    }
    const prompt = one.prompt_tokens;
    const cached = Math.min(one.cached_tokens, one.computed_tokens);
    const computed = Math.min(one.computed_tokens, prompt);
    shapes.push(
      bar(left, y + 2, (prompt + one.max_tokens) * scale, 12, "none", "to-come"),
      bar(left, y + 2, cached * scale, 12, `url(#${id}-shared)`),
      bar(left + cached * scale, y + 2, Math.max(0, computed - cached) * scale, 12, `url(#${id}-prompt)`),
      bar(left + prompt * scale, y + 2, one.generated_tokens * scale, 12, "var(--room-solid)"),
      svg("line", { class: "mark", x1: left + prompt * scale, x2: left + prompt * scale, y1: y, y2: y + 16 }),
      label(width - right + 8, y + 12, one.name, { class: "name" }),
      label(width - right + 66, y + 12, one.phase === "prompt"
        ? `prompt ${computed}/${prompt} +${one.step_tokens}`
        : `decode ${one.generated_tokens}/${one.max_tokens}`),
    );
  }
  drawQueue(shapes, engine, waiting, { y: top + lines * line + 8, width });
  put(picture, width, top + lines * line + 34, shapes);
}

/** The queue: a box for each request that waits, with the length of its prompt in it. */
function drawQueue(shapes, engine, waiting, { y, width }) {
  const box = 34;
  const words = `Queue: ${waiting}`;
  const left = 26 + words.length * CHARACTER;
  shapes.push(label(0, y + 14, words, { class: "name" }));
  const fitting = Math.max(0, Math.floor((width - left - 60) / (box + 4)));
  engine.waiting.slice(0, fitting).forEach((one, place) => {
    const x = left + place * (box + 4);
    shapes.push(bar(x, y, box, 20, "none", "waiting"));
    shapes.push(label(x + box / 2, y + 14, one.prompt_tokens, { "text-anchor": "middle" }));
  });
  const more = waiting - Math.min(fitting, engine.waiting.length);
  if (more > 0) shapes.push(label(left + fitting * (box + 4) + 4, y + 14, `+${more}`, {}));
}

function drawCells(picture, engine, id) {
  const width = widthOf(picture);
  const rows = rowsOf(engine.segments);
  const [left, top] = [66, 74];
  const line = Math.max(4, Math.min(20, 400 / Math.max(rows.size, 1)));
  const longest = Math.max(64, ...engine.segments.map((segment) => segment.start + segment.cells));
  const scale = (width - left - 4) / longest;
  const shapes = legend(0, [
    ["var(--room-solid)", "in use"], [`url(#${id}-shared)`, "in use, shared"],
    [`url(#${id}-kept)`, "kept prefix"], ["none", "free"],
  ]);
  drawMemory(shapes, engine, id, width);
  for (const [name, row] of rows) {
    if (line < 11) break; // no room for words; the table has them
    const isKept = name.startsWith("kept ");
    shapes.push(label(0, top + row * line + line / 2 + 4, name, { class: isKept ? "quiet" : "name" }));
  }
  for (const segment of engine.segments) {
    const first = Math.min(...segment.holders.map((name) => rows.get(name)));
    const last = Math.max(...segment.holders.map((name) => rows.get(name)));
    const isShared = segment.holders.length > 1;
    const fill = segment.is_kept ? "kept" : isShared ? "shared" : "";
    const [x, y] = [left + segment.start * scale, top + first * line];
    const [long, high] = [segment.cells * scale, (last - first + 1) * line - 3];
    shapes.push(bar(x, y, Math.max(long, 1), high, fill ? `url(#${id}-${fill})` : "var(--room-solid)"));
    const words = isShared ? `${segment.cells} cells, shared by ${inWords(segment.holders)}` : `${segment.cells}`;
    const shown = [words, isShared ? `${segment.cells} shared` : words, `${segment.cells}`].find((text) => text.length * CHARACTER < long - 8);
    if (shown && line >= 11) {
      shapes.push(label(x + 5, y + high / 2 + 4, shown, { class: fill ? "plate" : "on-solid" }));
    }
  }
  const bottom = top + rows.size * line;
  if (rows.size) {
    shapes.push(label(left, bottom + 14, "token 0", { class: "quiet" }));
    shapes.push(label(width - 4, bottom + 14, longest, { class: "quiet", "text-anchor": "end" }));
  } else {
    shapes.push(label(left, top + 14, "No cell is held.", { class: "quiet" }));
  }
  put(picture, width, bottom + 22, shapes);
}

/** All cells of the cache as one bar, to scale. */
function drawMemory(shapes, engine, id, width) {
  const scale = (width - 2) / engine.total_cells;
  const { used_cells: used, cached_cells: kept, total_cells: all } = engine;
  shapes.push(
    bar(1, 22, all * scale, 16, "none", "to-come"),
    bar(1, 22, used * scale, 16, "var(--room-solid)"),
    bar(1 + used * scale, 22, kept * scale, 16, `url(#${id}-kept)`),
    label(1, 54, `${number(used)} used + ${number(kept)} kept + ${number(all - used - kept)} free = ` +
      `${number(all)} cells, to scale above; who holds them below`, {}),
  );
}

/** Which line each holder gets: whoever shares cells lies together, because holders are sorted by their cells. */
function rowsOf(segments) {
  const paths = new Map();
  segments.forEach((segment, index) => {
    for (const name of segment.holders) paths.set(name, [...(paths.get(name) ?? []), index]);
  });
  const compare = ([, one], [, other]) => {
    const place = one.findIndex((index, depth) => index !== other[depth]);
    return place < 0 ? one.length - other.length : one[place] - (other[place] ?? -1);
  };
  return new Map([...paths].sort(compare).map(([name], row) => [name, row]));
}

function drawSteps(picture, { steps, step_tokens: budget }, id) {
  const width = widthOf(picture);
  const [left, top, high, most] = [34, 24, 104, 120];
  const tallest = Math.min(budget, Math.max(8, ...steps.map(([decodes, prompt]) => decodes + prompt)));
  const scale = high / tallest;
  const column = (width - left) / most;
  const shapes = legend(0, [["var(--room-solid)", "decodes"], [`url(#${id}-prompt)`, "chunks of prompts"]]);
  shapes.push(
    label(left - 5, top + 10, tallest, { class: "quiet", "text-anchor": "end" }),
    label(left - 5, top + high, 0, { class: "quiet", "text-anchor": "end" }),
    svg("line", { class: "rule", x1: left, x2: width, y1: top, y2: top }),
    svg("line", { class: "axis", x1: left, x2: width, y1: top + high, y2: top + high }),
    label(width, top + high + 15, "newest", { class: "quiet", "text-anchor": "end" }),
    label(left, top + high + 15, `the last ${steps.length} steps; height in tokens`, { class: "quiet" }),
  );
  const boxes = { decodes: "", prompts: "" };
  steps.forEach(([decodes, prompt], index) => {
    const x = width - (steps.length - index) * column;
    const solid = decodes ? Math.max(4, decodes * scale) : 0;
    boxes.decodes += box(x, top + high - solid, column - 0.6, solid);
    boxes.prompts += box(x, top + high - solid - prompt * scale, column - 0.6, prompt * scale);
  });
  shapes.push(
    svg("path", { d: boxes.prompts, fill: `url(#${id}-prompt)`, class: "outlined" }),
    svg("path", { d: boxes.decodes, fill: "var(--room-solid)" }),
  );
  put(picture, width, top + high + 22, shapes);
}

function drawMinute(picture, minute, id) {
  const width = widthOf(picture);
  const [left, top, high, seconds] = [44, 24, 104, 60];
  const most = roundedUp(Math.max(10, ...minute.generated, ...minute.prompt));
  const points = (values) => values.map((value, index) => {
    const x = width - 2 - (values.length - 1 - index) * ((width - left - 2) / (seconds - 1));
    return `${x.toFixed(1)},${(top + high - (value / most) * high).toFixed(1)}`;
  });
  const shapes = [
    svg("line", { class: "generated", x1: 0, x2: 22, y1: 7, y2: 7 }),
    label(28, 11, "generated"),
    svg("line", { class: "prompts", x1: 108, x2: 130, y1: 7, y2: 7 }),
    label(136, 11, "prompts"),
    label(left - 5, top + 10, number(most), { class: "quiet", "text-anchor": "end" }),
    label(left - 5, top + high, 0, { class: "quiet", "text-anchor": "end" }),
    svg("line", { class: "rule", x1: left, x2: width, y1: top, y2: top }),
    svg("line", { class: "axis", x1: left, x2: width, y1: top + high, y2: top + high }),
    label(left, top + high + 15, "60 s ago; height in tokens/s", { class: "quiet" }),
    label(width, top + high + 15, "now", { class: "quiet", "text-anchor": "end" }),
    svg("polyline", { class: "prompts", points: points(minute.prompt).join(" ") }),
    svg("polyline", { class: "generated", points: points(minute.generated).join(" ") }),
  ];
  put(picture, width, top + high + 22, shapes);
}

// Shapes

function patterns(id) {
  const pattern = (name, size, turn, ...shapes) =>
    svg("pattern", {
      id: `${id}-${name}`, class: `pattern ${name}`, width: size, height: size, patternUnits: "userSpaceOnUse",
      patternTransform: `rotate(${turn})`,
    }, svg("rect", { class: "ground", width: size, height: size }), ...shapes);
  return svg("svg", { class: "patterns", width: 0, height: 0, "aria-hidden": "true" }, svg("defs", {},
    pattern("prompt", 6, 45, svg("rect", { class: "ink", width: 3, height: 6 })),
    pattern("shared", 6, 45, svg("path", { class: "ink", d: "M0 0h6v2h-4v4h-2z" })),
    pattern("kept", 5, 0, svg("circle", { class: "ink", cx: 2.5, cy: 2.5, r: 1.1 })),
  ));
}

function legend(y, entries) {
  let x = 0;
  return entries.flatMap(([fill, words]) => {
    const shapes = [bar(x + 0.5, y + 1, 16, 11, fill, "swatch"), label(x + 22, y + 11, words)];
    x += 36 + words.length * CHARACTER;
    return shapes;
  });
}

function bar(x, y, width, height, fill, name = "bar") {
  return svg("rect", { class: name, x, y, width: Math.max(0, width), height: Math.max(0, height), fill });
}

function box(x, y, width, height) {
  return height > 0 ? `M${x.toFixed(2)} ${y.toFixed(2)}h${width.toFixed(2)}v${height.toFixed(2)}h${-width.toFixed(2)}z` : "";
}

function label(x, y, words, attributes = {}) {
  return svg("text", { x, y, ...attributes }, String(words));
}

function put(picture, width, height, shapes) {
  picture.setAttribute("width", width);
  picture.setAttribute("height", Math.round(height));
  picture.replaceChildren(...shapes);
}

function widthOf(picture) {
  return Math.max(280, Math.floor(picture.parentElement.clientWidth));
}

// Small things

function svg(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Change a text only if it differs: what did not change is not touched, nor announced again. */
function setText(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

function total(segments) {
  return segments.reduce((sum, segment) => sum + segment.cells, 0);
}

function count(amount, noun, nouns = `${noun}s`) {
  return `${number(amount)} ${amount === 1 ? noun : nouns}`;
}

function number(value) {
  const digits = value > 0 && value < 10 && !Number.isInteger(value) ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** A latency as its two lines: the median, and what 95 % stayed under. */
function latency(measured) {
  if (!measured) return ["none yet", ""];
  return [`${seconds(measured.median)} median`, `95 % under ${seconds(measured.p95)}, of ${number(measured.count)}`];
}

function seconds(value) {
  return value < 1 ? `${(value * 1000).toPrecision(value < 0.01 ? 2 : 3)} ms` : `${value.toPrecision(3)} s`;
}

/** The next of 1, 2, 5, 10, 20, 50, … */
function roundedUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
