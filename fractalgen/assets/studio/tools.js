/** Pointers on the roll: select, draw, erase; mouse, pen and touch.  A drag is shown at once and is one edit. */
import * as edit from "./document.js";
import { barAt, barEnd, bars, clamp } from "./document.js";
import { GUTTER } from "./roll.js";

const HOLD = 420,
  STILL = 6; // milliseconds and pixels of a long press

export class Tools {
  kind = "select";
  grid = edit.GRID;
  #pointers = new Map();
  #drag = null;

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
    this.#pointers.set(event.pointerId, { x, y });
    this.roll.scroller.focus({ preventScroll: true });
    if (this.#pointers.size === 2) return this.#pinch();
    const hit = this.roll.hit(x, y),
      touch = event.pointerType === "touch";
    if (touch && this.kind === "select" && hit.area === "notes" && !this.studio.selection.has(hit.note?.id))
      this.#drag = this.#press(x, y, hit);
    else this.#drag = this.#begin(hit, event, x, y);
    event.preventDefault();
  }

  #move(event) {
    const { x, y } = this.#point(event),
      known = this.#pointers.get(event.pointerId);
    if (!known) return this.#hover(x, y);
    Object.assign(known, { x, y });
    this.#drag?.move?.(x, y, event);
    this.roll.invalidate();
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (event.type === "pointercancel") this.#drag?.cancel?.();
    else this.#drag?.done?.(event);
    this.#drag = null;
    this.studio.marquee = null;
    this.roll.invalidate();
  }

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
        this.#choose(hit.note, false);
        this.#drag = null;
        this.studio.openMenu(x0, y0);
      } else this.#drag = this.#dragRegion(hit, x0, y0);
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
        if (hit.note) this.#choose(hit.note, false);
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
    this.#drag?.cancel?.();
    this.studio.drop();
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
      frame = area === "notes" && this.#frameEdge(x, y);
    const cursors = { ruler: "pointer", sections: "text", chords: "text", velocity: "ns-resize", keys: "pointer" };
    const onNote = this.kind === "erase" ? "crosshair" : edge ? "ew-resize" : "move";
    const cursor =
      cursors[area] ?? (note ? onNote : frame ? "ew-resize" : this.kind === "select" ? "default" : "crosshair");
    this.roll.canvas.style.cursor = cursor;
    this.studio.hovered(note ?? null);
  }

  #double(event) {
    const { x, y } = this.#point(event),
      hit = this.roll.hit(x, y);
    if (hit.area !== "notes" || this.kind !== "select") return;
    if (hit.note) this.studio.remove(new Set([hit.note.id]));
    else this.#draw(hit).done();
  }

  #menu(event) {
    event.preventDefault();
    if (event.pointerType === "touch") return; // the long press has its own
    const { x, y } = this.#point(event),
      { note, area } = this.roll.hit(x, y);
    if (area !== "notes") return;
    if (note && !this.studio.selection.has(note.id)) this.#choose(note, false);
    this.studio.openMenu(x, y);
  }

  // ---- what a drag does ----

  #begin(hit, event, x, y) {
    const { studio } = this;
    if (hit.area === "keys") return this.#keys(hit, x);
    if (hit.area === "ruler") return this.#ruler(hit, x);
    if (hit.area === "sections" || hit.area === "chords")
      return { done: () => studio.editLane(hit.area, this.#laneTick(hit)) };
    if (hit.area === "velocity") return this.#velocities(x, y);
    if (hit.area !== "notes") return null;
    if (!studio.editable) return { done: () => studio.refuse() };
    if (this.kind === "erase") return this.#erase(hit);
    if (hit.note) return this.#dragNotes(hit, event, x, y);
    if (this.kind === "draw") return this.#draw(hit);
    const frame = this.#frameEdge(x, y);
    return frame ? this.#dragFrame(frame) : this.#dragRegion(hit, x, y);
  }

  #laneTick({ area, tick }) {
    const piece = this.studio.shown,
      existing = piece[area].findLast(([at]) => at <= tick);
    const next = barAt(piece, tick),
      bar = bars(piece)[next],
      beat = (4 * edit.QUARTER) / bar.unit;
    const start = area === "chords" ? bar.tick + Math.floor((tick - bar.tick) / beat) * beat : bar.tick;
    const width = (at, name) => this.roll.x(at) + 12 + 8 * name.length;
    return existing && this.roll.x(tick) <= width(...existing) ? existing[0] : start;
  }

  /** The keys sound as long as they are held, louder near their front, and are recorded as those of a keyboard. */
  #keys({ pitch }, x0) {
    const { keyboard } = this.studio,
      loud = (x) => clamp(Math.round(40 + (70 * x) / GUTTER), 1, 127);
    let held = pitch;
    keyboard.press(pitch, loud(x0));
    const release = () => keyboard.release(held);
    return {
      move: (x, y) => {
        const now = this.roll.pitchAt(y);
        if (now === held) return;
        release();
        keyboard.press((held = now), loud(x));
      },
      done: release,
      cancel: release,
    };
  }

  /** A click on the ruler moves the cursor; a drag is a region of whole bars over all pitches, and the loop. */
  #ruler({ tick }, x0) {
    const piece = this.studio.shown,
      first = bars(piece)[barAt(piece, tick)].tick;
    let region = null;
    return {
      move: (x) => {
        if (!region && Math.abs(x - x0) < STILL) return;
        const other = Math.max(0, this.roll.tickAt(x)),
          low = Math.min(other, first),
          high = Math.max(other, tick);
        region = { start: bars(piece)[barAt(piece, low)].tick, end: barEnd(piece, high), low: 0, high: 128 };
        this.studio.setRegion(region);
      },
      done: () => (region ? this.studio.setRegion(region, true) : this.studio.seek(this.snap(tick))),
    };
  }

  #velocities(x0, y0) {
    const { studio, roll } = this;
    if (!studio.editable) return null;
    const ids = new Map(),
      paint = (x, y) => {
        const near = roll.stemsAt(x),
          chosen = near.filter(({ id }) => studio.selection.has(id));
        for (const { id } of studio.selection.size ? chosen : near) ids.set(id, roll.velocityAt(y));
        if (ids.size) studio.draft(edit.setVelocity(studio.piece, new Set(ids.keys()), ({ id }) => ids.get(id)));
      };
    paint(x0, y0);
    return { move: paint, done: () => ids.size && studio.keep("velocity", ids.size), cancel: () => studio.drop() };
  }

  #erase(hit) {
    const gone = new Set(),
      { studio } = this;
    const wipe = ({ note }) => {
      if (!note || gone.has(note.id)) return;
      gone.add(note.id);
      studio.draft(edit.remove(studio.piece, gone));
    };
    wipe(hit);
    return {
      move: (x, y) => wipe(this.roll.hit(x, y)),
      done: () => gone.size && studio.keep("delete", gone.size),
      cancel: () => studio.drop(),
    };
  }

  #draw({ tick, pitch }) {
    const { studio } = this,
      start = this.snap(tick, false, Math.floor);
    const last = studio.lastLength ?? this.grid * 2,
      note = { pitch, start, duration: last, velocity: studio.lastVelocity };
    let drawn = edit.add(studio.piece, [note]),
      long = last;
    studio.draft(drawn.piece);
    studio.select(drawn.ids);
    studio.touch(pitch, note.velocity);
    return {
      move: (x) => {
        long = Math.max(this.grid, this.snap(this.roll.tickAt(x), false, Math.ceil) - start);
        drawn = edit.add(studio.piece, [{ ...note, duration: long }]);
        studio.draft(drawn.piece);
      },
      done: () => {
        studio.lastLength = long;
        studio.keep("add", 1);
      },
      cancel: () => studio.drop(),
    };
  }

  #choose(note, more) {
    const { studio } = this,
      chosen = studio.selection;
    if (more)
      studio.select(chosen.has(note.id) ? chosen.difference(new Set([note.id])) : chosen.union(new Set([note.id])));
    else if (!chosen.has(note.id)) studio.select(new Set([note.id]));
    studio.lastVelocity = note.velocity;
  }

  #dragNotes({ note, edge, tick, pitch }, event, x0, y0) {
    const { studio, roll } = this,
      more = event.shiftKey,
      copy = event.ctrlKey || event.metaKey;
    const alone = !studio.selection.has(note.id);
    if (more || alone) this.#choose(note, more);
    studio.touch(note.pitch, note.velocity);
    let moved = false,
      ids = studio.selection,
      from = studio.piece,
      sounded = pitch;
    return {
      move: (x, y, { altKey }) => {
        if (!moved && Math.hypot(x - x0, y - y0) < 3) return;
        if (!moved && copy) {
          const copied = edit.add(
            from,
            from.notes.filter(({ id }) => ids.has(id)),
          );
          ({ piece: from, ids } = copied);
          studio.select(ids);
        }
        moved = true;
        const by = roll.tickAt(x) - tick,
          step = (at) => this.snap(at + by, altKey) - at;
        if (edge === "end") studio.draft(edit.resize(from, ids, step(note.start + note.duration)));
        else if (edge === "start") studio.draft(edit.trim(from, ids, step(note.start)));
        else {
          const higher = roll.pitchAt(y) - pitch;
          studio.draft(edit.move(from, ids, step(note.start), higher));
          if (pitch + higher !== sounded) studio.touch((sounded = pitch + higher), note.velocity);
        }
      },
      done: () => {
        if (moved) studio.keep(edge ? "resize" : copy ? "copy" : "move", ids.size);
        else if (!more && !alone && studio.selection.size > 1) studio.select(new Set([note.id]));
      },
      cancel: () => studio.drop(),
    };
  }

  /** A rectangle: the region to compose, and a selection of the notes in it. */
  #dragRegion({ tick, pitch }, x0, y0) {
    const { studio, roll } = this;
    let region = null;
    return {
      move: (x, y, { altKey }) => {
        if (!region && Math.hypot(x - x0, y - y0) < STILL) return;
        const other = Math.max(0, roll.tickAt(x)),
          end = roll.pitchAt(y);
        const grid = altKey ? this.grid : Math.max(this.grid, edit.QUARTER); // beats
        region = {
          start: Math.floor(Math.min(tick, other) / grid) * grid,
          end: Math.ceil(Math.max(tick, other, 1) / grid) * grid,
          low: Math.min(pitch, end),
          high: Math.max(pitch, end) + 1,
        };
        studio.marquee = region;
        studio.select(new Set(edit.inside(studio.shown, region).map(({ id }) => id)), true);
      },
      done: () => {
        if (region) studio.setRegion(region, true);
        else {
          studio.select();
          studio.setRegion(null);
        }
      },
    };
  }

  #frameEdge(x, y) {
    const { region } = this.studio,
      { roll } = this;
    if (!region || y < roll.y(region.high - 1) || y > roll.y(region.low) + roll.row) return null;
    return ["start", "end"].find((side) => Math.abs(roll.x(region[side]) - x) <= 5) ?? null;
  }

  #dragFrame(side) {
    const { studio, roll } = this,
      from = studio.region;
    return {
      move: (x) => {
        const tick = this.snap(roll.tickAt(x));
        const region = {
          ...from,
          [side]: side === "start" ? clamp(tick, 0, from.end - this.grid) : Math.max(tick, from.start + this.grid),
        };
        studio.setRegion(region);
      },
      done: () => studio.setRegion(studio.region, true),
    };
  }
}
