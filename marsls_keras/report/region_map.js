"use strict";
// Zoom and pan of the maps: buttons, drag, pinch, keys, and the wheel on a map that has the focus. No network.
for (const map of document.querySelectorAll(".region")) {
  const svg = map.querySelector("svg");
  const whole = svg.viewBox.baseVal, home = [whole.x, whole.y, whole.width, whole.height];
  let view = home.slice();

  const show = () => {
    const width = Math.min(home[2], Math.max(home[2] / 64, view[2])), height = width * home[3] / home[2];
    view = [Math.min(Math.max(view[0], home[0]), home[0] + home[2] - width),
            Math.min(Math.max(view[1], home[1]), home[1] + home[3] - height), width, height];
    svg.setAttribute("viewBox", view.join(" "));
    svg.classList.toggle("near", width < home[2] / 4);
    svg.style.touchAction = width < home[2] ? "none" : "pan-y";
  };
  // Zooms about a point of the screen, or about the middle.
  const zoom = (times, x, y) => {
    const box = svg.getBoundingClientRect();
    const u = x === undefined ? .5 : (x - box.left) / box.width, v = y === undefined ? .5 : (y - box.top) / box.height;
    const width = Math.min(home[2], Math.max(home[2] / 64, view[2] / times)), height = width * home[3] / home[2];
    view = [view[0] + u * (view[2] - width), view[1] + v * (view[3] - height), width, height];
    show();
  };
  const pan = (right, down) => {
    const box = svg.getBoundingClientRect();
    view[0] -= right * view[2] / box.width;
    view[1] -= down * view[3] / box.height;
    show();
  };
  const reset = () => { view = home.slice(); show(); };

  const bar = document.createElement("div");
  bar.className = "zoom";
  for (const [text, told, act] of [["+", "Zoom in", () => zoom(2)], ["−", "Zoom out", () => zoom(.5)], ["whole", "Show all", reset]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.title = told;
    button.addEventListener("click", act);
    bar.append(button);
  }
  map.append(bar);

  const fingers = new Map();
  const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  svg.addEventListener("pointerdown", event => {
    svg.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  svg.addEventListener("pointermove", event => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const before = fingers.size === 2 ? spread() : 0;
    const right = event.clientX - last.x, down = event.clientY - last.y;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (before) {
      const [a, b] = [...fingers.values()];
      zoom(spread() / before, (a.x + b.x) / 2, (a.y + b.y) / 2);
    } else {
      pan(right, down);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, event => fingers.delete(event.pointerId));
  svg.addEventListener("dblclick", event => zoom(2, event.clientX, event.clientY));
  svg.addEventListener("wheel", event => {
    if (document.activeElement !== svg && !event.ctrlKey) return;  // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
  }, { passive: false });
  svg.addEventListener("keydown", event => {
    const act = { "+": () => zoom(2), "-": () => zoom(.5), "0": reset, ArrowLeft: () => pan(80, 0),
      ArrowRight: () => pan(-80, 0), ArrowUp: () => pan(0, 80), ArrowDown: () => pan(0, -80) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  show();
}
