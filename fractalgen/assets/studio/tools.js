/** Pointers on the roll: select, draw, erase; mouse, pen and touch. */
import { GRID } from "./document.js";
import * as drags from "./drags.js";
import { STILL, choose, frameEdge } from "./drags.js";
import { GUTTER, TOP } from "./viewport.js";

export const KINDS = ["select", "draw", "erase"];
const HOLD = 420; // milliseconds of a long press
const EDGE = 24; // pixels from an edge of the notes in which a drag scrolls
const CURSORS = { ruler: "pointer", sections: "text", chords: "text", velocity: "ns-resize", keys: "pointer" };

/** Pixels that a drag from one place to another scrolls in a frame: some, where it goes to one of two edges. */
function speed(from, at, low, high) {
  if (at < Math.min(low + EDGE, from - STILL)) return Math.max(-12, (at - low - EDGE) / 2);
  if (at > Math.max(high - EDGE, from + STILL)) return Math.min(12, (at - high + EDGE) / 2);
  return 0;
}

export class Tools {
  kind = "select";
  grid = GRID;
  #pointers = new Map();
  #drag = null;
  #frame = null; // in which a drag scrolls

  constructor(studio, roll) {
    Object.assign(this, { studio, roll });
    const box = roll.canvas;
    box.addEventListener("pointerdown", (event) => this.#down(event));
    box.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) box.addEventListener(name, (event) => this.#up(event));
    box.addEventListener("dblclick", (event) => this.#double(event));
    box.addEventListener("contextmenu", (event) => this.#menu(event));
    roll.scroller.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  setKind(kind) {
    if (!kind) return;
    this.kind = kind;
    this.studio.refresh();
  }

  /** The nearest place of the grid; any tick if it is `free`. */
  snap(tick, free = false, round = Math.round) {
    return free ? Math.max(0, Math.round(tick)) : Math.max(0, round(tick / this.grid) * this.grid);
  }

  #point(event) {
    const { left, top } = this.roll.canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  // ---- pointers ----

  #down(event) {
    if (event.button > 0) return;
    const { x, y } = this.#point(event);
    this.roll.canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, { x, y, from: { x, y } });
    this.roll.scroller.focus({ preventScroll: true });
    if (this.#pointers.size === 2) return this.#pinch();
    const hit = this.roll.hit(x, y),
      touch = event.pointerType === "touch";
    if (touch && this.kind === "select" && hit.area === "notes" && !this.studio.selection.has(hit.note?.id))
      this.#drag = this.#press(x, y, hit);
    else this.#drag = drags.begin(this, hit, event, x, y);
    event.preventDefault();
  }

  #move(event) {
    const { x, y } = this.#point(event),
      known = this.#pointers.get(event.pointerId);
    if (!known) return this.#hover(x, y);
    Object.assign(known, { x, y });
    this.#drag?.move?.(x, y, event);
    this.#scroll(this.#drag, known, event);
    this.roll.invalidate();
  }

  /** At an edge of the notes the roll scrolls as long as a drag is held there. */
  #scroll(drag, { x, y, from }, event) {
    cancelAnimationFrame(this.#frame);
    const { scroller, width, bottom } = this.roll,
      along = drag?.scrolls ? speed(from.x, x, GUTTER, width) : 0,
      down = drag?.scrolls === "both" ? speed(from.y, y, TOP, bottom) : 0;
    if (!along && !down) return;
    this.#frame = requestAnimationFrame(() => {
      if (this.#drag !== drag) return;
      scroller.scrollBy(along, down);
      drag.move(x, y, event);
      this.#scroll(drag, { x, y, from }, event);
    });
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (event.type === "pointercancel") return this.cancel();
    const drag = this.#drag;
    this.#drag = null; // what it does at its end does not take it back
    drag?.done?.(event);
    this.studio.marquee = null;
    this.roll.invalidate();
  }

  /** Takes back a drag that is under way; whether there was one. */
  cancel() {
    const busy = Boolean(this.#drag);
    this.#drag?.cancel?.();
    this.#drag = null;
    this.studio.marquee = null;
    this.studio.drop();
    return busy;
  }

  /** A finger: a tap selects, a drag scrolls, a long press begins a region or opens the menu of a note. */
  #press(x0, y0, hit) {
    const { scroller } = this.roll,
      from = { left: scroller.scrollLeft, top: scroller.scrollTop };
    let panned = false,
      speed = { x: 0, y: 0 },
      last = { x: x0, y: y0 };
    const timer = setTimeout(() => {
      navigator.vibrate?.(8);
      if (hit.note) {
        choose(this.studio, hit.note);
        this.#drag = null;
        this.studio.editor.openMenu(x0, y0);
      } else this.#drag = drags.dragRegion(this, hit, x0, y0);
    }, HOLD);
    return {
      move: (x, y) => {
        if (!panned && Math.hypot(x - x0, y - y0) < STILL) return;
        clearTimeout(timer);
        panned = true;
        speed = { x: x - last.x, y: y - last.y };
        last = { x, y };
        scroller.scrollTo(from.left + x0 - x, from.top + y0 - y);
      },
      done: () => {
        clearTimeout(timer);
        if (panned) return this.#glide(speed);
        if (hit.note) choose(this.studio, hit.note);
        else this.studio.select();
      },
      cancel: () => clearTimeout(timer),
    };
  }

  #glide({ x, y }) {
    if (Math.hypot(x, y) < 1 || this.#pointers.size) return;
    this.roll.scroller.scrollBy(-x, -y);
    requestAnimationFrame(() => this.#glide({ x: x * 0.93, y: y * 0.93 }));
  }

  #pinch() {
    this.cancel();
    const spread = () => {
      const [one, other] = [...this.#pointers.values()];
      return {
        dx: Math.max(24, Math.abs(one.x - other.x)),
        dy: Math.max(24, Math.abs(one.y - other.y)),
        x: (one.x + other.x) / 2,
        y: (one.y + other.y) / 2,
      };
    };
    let before = spread();
    this.#drag = {
      move: () => {
        if (this.#pointers.size < 2) return;
        const now = spread(),
          wide = before.dx > 40 ? now.dx / before.dx : 1,
          high = before.dy > 40 ? now.dy / before.dy : 1;
        this.roll.zoom(wide, high, now.x, now.y);
        this.roll.scroller.scrollBy(before.x - now.x, before.y - now.y);
        before = now;
      },
    };
  }

  #wheel(event) {
    const { x, y } = this.#point(event),
      by = 1.0018 ** -event.deltaY;
    if (event.ctrlKey || event.metaKey) this.roll.zoom(by, 1, x, y);
    else if (event.altKey) this.roll.zoom(1, by, x, y);
    else return;
    event.preventDefault();
  }

  #hover(x, y) {
    const { area, note, edge } = this.roll.hit(x, y),
      frame = area === "notes" && frameEdge(this, x, y);
    const onNote = this.kind === "erase" ? "crosshair" : edge ? "ew-resize" : "move";
    const cursor =
      CURSORS[area] ?? (note ? onNote : frame ? "ew-resize" : this.kind === "select" ? "default" : "crosshair");
    this.roll.canvas.style.cursor = cursor;
    this.studio.view.hovered(note ?? null);
  }

  #double(event) {
    const { x, y } = this.#point(event),
      hit = this.roll.hit(x, y);
    if (hit.area !== "notes" || this.kind !== "select") return;
    if (hit.note) this.studio.editor.remove(new Set([hit.note.id]));
    else drags.draw(this, hit).done();
  }

  #menu(event) {
    event.preventDefault();
    if (event.pointerType === "touch") return; // the long press has its own
    const { x, y } = this.#point(event),
      { note, area, tick } = this.roll.hit(x, y);
    if (area !== "notes") return;
    if (note && !this.studio.selection.has(note.id)) choose(this.studio, note);
    this.studio.editor.openMenu(x, y, tick);
  }
}
