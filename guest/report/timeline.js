"use strict";
// Draws the timeline: lanes are columns, steps are rows, and only what is in view is in the document.
(() => {
  const T = JSON.parse(document.getElementById("timeline-data").textContent);
  const section = document.querySelector(".timeline");
  const [view, heads, svg, tip] = [".view", ".heads", "svg", ".tip"].map(name => section.querySelector(name));
  const WIDTHS = {vcpu: 228, buffer: 120, link: 222, device: 214, dma: 222, interrupt: 172};
  const GAP = 40, GUTTER = 46, TOP = 8, BUCKET = 64, MARGIN = 12, ROWS = [2, 4, 8, 14, 20, 26, 34];
  const SVG = "http://www.w3.org/2000/svg";
  const [LANE, START, END, LABEL, STYLE, DETAILS, TAG] = [0, 1, 2, 3, 4, 5, 6];

  let row = 26;
  let at = GUTTER;
  const columns = T.lanes.map(([kind, name, how, capacity], lane) => {
    const gap = kind === "buffer" && T.lanes[lane + 1]?.[0] === "buffer" ? GAP / 2 : GAP;
    const column = {x: at, width: WIDTHS[kind], gap, name, how, capacity};
    at += column.width + gap;
    return column;
  });
  const width = at - GAP + 16;
  const steps = Math.max(1, ...T.boxes.map(box => box[END]));
  const fills = T.lanes.map(() => []);
  for (const [lane, step, bytes] of T.fills) fills[lane].push([step, bytes]);

  const buckets = new Map();
  const put = (kind, first, last, index) => {
    for (let bucket = Math.floor(first / BUCKET); bucket <= Math.floor(last / BUCKET); bucket++) {
      if (!buckets.has(bucket)) buckets.set(bucket, {boxes: new Set(), arrows: new Set()});
      buckets.get(bucket)[kind].add(index);
    }
  };
  const into = T.boxes.map(() => []), from = T.boxes.map(() => []);
  T.boxes.forEach((box, index) => put("boxes", box[START], box[END] - 1, index));
  T.arrows.forEach(([source, leaves, target, reaches], index) => {
    put("arrows", Math.min(leaves, reaches), Math.max(leaves, reaches), index);
    from[source].push(index);
    into[target].push(index);
  });

  const el = (tag, attributes, ...children) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const y = step => TOP + step * row;
  const middle = step => y(step) + row / 2;
  const letter = (() => {
    const measure = document.createElement("canvas").getContext("2d");
    measure.font = "12px ui-monospace, monospace";
    return measure.measureText("0".repeat(50)).width / 50;
  })();
  const cut = (text, pixels) => {
    const fits = Math.floor(pixels / letter);
    return text.length <= fits ? text : text.slice(0, Math.max(0, fits - 1)) + "…";
  };

  function filled(lane, box, column, place) {
    const group = [], steps = fills[lane].filter(([step]) => step >= box[START] && step < box[END]);
    steps.forEach(([step, bytes], index) => {
      const until = index + 1 < steps.length ? steps[index + 1][0] : box[END];
      const [top, bottom] = [Math.max(y(step), place.y + 1), Math.min(y(until), place.y + place.height - 1)];
      const amount = Math.min(1, bytes / column.capacity) * (column.width - 2);
      if (column.capacity) group.push(el("rect", {class: "amount", x: column.x + 1, y: top, width: amount, height: Math.max(1, bottom - top), "data-bytes": bytes}));
      if (row >= 14 && bytes) group.push(el("text", {x: column.x + column.width - 6, y: middle(step), "text-anchor": "end"}, String(bytes)));
    });
    return group;
  }

  function drawnBox(index) {
    const box = T.boxes[index], column = columns[box[LANE]];
    const inset = row >= 8 ? 1.5 : 0;
    const place = {x: column.x, y: y(box[START]) + inset, width: column.width, height: Math.max(1, (box[END] - box[START]) * row - 2 * inset), rx: row >= 8 ? 3 : 0};
    const held = box[STYLE] === "held";
    const group = el("g", {class: `box ${box[STYLE]}`, "data-box": index, tabindex: 0, role: "img", "aria-label": `${column.name}: ${box[LABEL]}`}, el("rect", place));
    if (held) group.append(...filled(box[LANE], box, column, place));
    if (row < 14) return group;
    const room = column.width - 14 - (held ? 24 : box[TAG] ? (box[TAG].length + 1) * letter : 0);
    group.append(el("text", {x: column.x + 6, y: middle(box[START])}, cut(box[LABEL], room)));
    if (box[TAG]) group.append(el("text", {class: "tag", x: column.x + column.width - 6, y: middle(box[START])}, box[TAG]));
    return group;
  }

  function drawnArrow(index) {
    const [source, leaves, target, reaches] = T.arrows[index];
    const [one, two] = [columns[T.boxes[source][LANE]], columns[T.boxes[target][LANE]]];
    const [x1, y1, x2, y2] = [one.x + one.width, middle(leaves), two.x - 1, middle(reaches)];
    const bend = Math.min(60, Math.max(18, (x2 - x1) / 2));
    return el("path", {class: "arrow", "data-arrow": index, d: `M${x1},${y1}C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`, "marker-end": "url(#head)"});
  }

  const marker = (id, name) => el("marker", {id, class: name, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: "userSpaceOnUse", orient: "auto"},
    el("path", {d: "M0,0L8,4L0,8z"}));
  const layers = {lanes: el("g", {}), numbers: el("g", {}), boxes: el("g", {}), arrows: el("g", {})};
  svg.append(el("defs", {}, marker("head", ""), marker("hot-head", "hot")), ...Object.values(layers));

  function layout() {
    svg.setAttribute("width", width);
    svg.classList.toggle("far", row < 8);
    svg.setAttribute("height", TOP * 2 + steps * row);
    heads.style.width = `${width}px`;
    heads.replaceChildren(...columns.map(column => {
      const head = document.createElement("div"), how = document.createElement("small");
      Object.assign(head.style, {left: `${column.x}px`, width: `${column.width + column.gap - 8}px`});
      how.textContent = column.how;
      head.append(column.name, how);
      head.title = `${column.name}: ${column.how}`;
      return head;
    }));
    layers.lanes.replaceChildren(...columns.map(({x, width}) => el("path", {class: "lane", d: `M${x + width / 2},0V${TOP * 2 + steps * row}`})));
    draw();
  }

  let drawn = "";
  function draw() {
    const first = Math.max(0, Math.floor(view.scrollTop / row) - MARGIN);
    const last = Math.min(steps - 1, Math.ceil((view.scrollTop + view.clientHeight) / row) + MARGIN);
    const [low, high] = [Math.floor(first / BUCKET), Math.floor(last / BUCKET)];
    if (drawn === `${row} ${low} ${high}`) return;
    drawn = `${row} ${low} ${high}`;
    const boxes = new Set(), arrows = new Set();
    for (let bucket = low; bucket <= high; bucket++) {
      buckets.get(bucket)?.boxes.forEach(index => boxes.add(index));
      buckets.get(bucket)?.arrows.forEach(index => arrows.add(index));
    }
    layers.boxes.replaceChildren(...[...boxes].map(drawnBox));
    layers.arrows.replaceChildren(...[...arrows].map(drawnArrow));
    const every = row >= 14 ? 1 : row >= 4 ? 10 : 50, numbers = [];
    for (let step = Math.ceil(low * BUCKET / every) * every; step < Math.min(steps, (high + 1) * BUCKET); step += every)
      numbers.push(el("text", {class: "number", x: GUTTER - 10, y: middle(step)}, String(step)));
    layers.numbers.replaceChildren(...numbers);
    heat();
  }

  // A box that is pointed at: what is known of it, and all that led to it or came of it.
  let hot = new Set(), hotArrows = new Set();
  function heat() {
    for (const node of layers.boxes.children) node.classList.toggle("hot", hot.has(Number(node.dataset.box)));
    for (const node of layers.arrows.children) {
      const on = hotArrows.has(Number(node.dataset.arrow));
      node.classList.toggle("hot", on);
      node.setAttribute("marker-end", on ? "url(#hot-head)" : "url(#head)");
    }
  }
  function follow(index, edges, end) {
    const found = [index];
    for (const box of found) for (const arrow of edges[box]) {
      hotArrows.add(arrow);
      const next = T.arrows[arrow][end];
      if (!hot.has(next)) { hot.add(next); found.push(next); }
    }
  }
  function show(index, x, y) {
    const box = T.boxes[index], list = document.createElement("dl");
    for (const [name, value] of [...box[DETAILS], ["lane", `${columns[box[LANE]].name} (${columns[box[LANE]].how})`], ["step", box[END] > box[START] + 1 ? `${box[START]} to ${box[END] - 1}` : box[START]]]) {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      text.textContent = value;
      list.append(term, text);
    }
    const title = document.createElement("strong");
    title.textContent = box[LABEL];
    tip.replaceChildren(title, list);
    tip.hidden = false;
    const place = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 16, innerWidth - place.width - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 16, innerHeight - place.height - 8))}px`;
    hot = new Set([index]);
    hotArrows = new Set();
    follow(index, into, 0);
    follow(index, from, 2);
    heat();
  }
  function hide() {
    tip.hidden = true;
    hot = new Set();
    hotArrows = new Set();
    heat();
  }
  const boxOf = event => event.target.closest?.(".box");
  svg.addEventListener("pointermove", event => { const box = boxOf(event); box ? show(Number(box.dataset.box), event.clientX, event.clientY) : hide(); });
  svg.addEventListener("pointerleave", hide);
  view.addEventListener("focusin", event => {
    const box = boxOf(event), place = box?.getBoundingClientRect();
    if (box?.matches(":focus-visible")) show(Number(box.dataset.box), place.left, place.bottom);
  });
  view.addEventListener("focusout", hide);

  function zoom(to) {
    const step = (view.scrollTop + view.clientHeight / 2) / row;
    row = to;
    layout();
    view.scrollTop = step * row - view.clientHeight / 2;
    draw();
  }
  const nearest = height => ROWS.filter(each => each <= height).pop() ?? ROWS[0];
  section.querySelector(".in").onclick = () => zoom(ROWS.find(each => each > row) ?? row);
  section.querySelector(".out").onclick = () => zoom(ROWS.filter(each => each < row).pop() ?? row);
  section.querySelector(".all").onclick = () => zoom(nearest((view.clientHeight - 60) / steps));
  view.addEventListener("scroll", draw);
  addEventListener("resize", draw);
  layout();
})();
