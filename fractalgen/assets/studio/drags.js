/**
 * What a drag on the roll does, by where it begins.  A drag is `{move(x, y, event), done(), cancel()}`, each of them if
 * there is something to do, or null.  It is shown at once as a draft, and is one edit.  `scrolls`: the roll scrolls
 * where the drag reaches an edge, in "time" or in "both" time and pitch.
 */
import * as edit from "./document.js";
import { barAt, barEnd, bars, clamp } from "./document.js";
import { editLane } from "./lanes.js";
import { GUTTER } from "./viewport.js";

export const STILL = 6; // pixels that a pointer may move and still rest

/** What a pointer begins at `hit`, a place of the roll. */
export function begin(tools, hit, event, x, y) {
  const { studio } = tools;
  if (hit.area === "keys") return keys(tools, hit, x);
  if (hit.area === "ruler") return ruler(tools, hit, x);
  if (hit.area === "sections" || hit.area === "chords")
    return { done: () => editLane(studio, hit.area, laneTick(tools, hit)) };
  if (hit.area === "velocity") return velocities(tools, x, y);
  if (hit.area !== "notes") return null;
  if (!studio.editable) return { done: () => studio.refuse() };
  if (tools.kind === "erase") return erase(tools, hit);
  if (hit.note) return dragNotes(tools, hit, event, x, y);
  if (tools.kind === "draw") return draw(tools, hit);
  const frame = frameEdge(tools, x, y);
  return frame ? dragFrame(tools, frame) : dragRegion(tools, hit, x, y);
}

/** The entry of a lane at a place, or the tick at which a new one begins. */
function laneTick(tools, { area, tick }) {
  const piece = tools.studio.shown,
    existing = piece[area].findLast(([at]) => at <= tick);
  const bar = bars(piece)[barAt(piece, tick)],
    beat = (4 * edit.QUARTER) / bar.unit;
  const start = area === "chords" ? bar.tick + Math.floor((tick - bar.tick) / beat) * beat : bar.tick;
  const width = (at, name) => tools.roll.x(at) + 12 + 8 * name.length;
  return existing && tools.roll.x(tick) <= width(...existing) ? existing[0] : start;
}

/** The keys sound as long as they are held, louder near their front, and are recorded as those of a keyboard. */
function keys(tools, { pitch }, x0) {
  const { keyboard } = tools.studio,
    loud = (x) => clamp(Math.round(40 + (70 * x) / GUTTER), 1, 127);
  let held = pitch;
  keyboard.press(pitch, loud(x0));
  const release = () => keyboard.release(held);
  return {
    move: (x, y) => {
      const now = tools.roll.pitchAt(y);
      if (now === held) return;
      release();
      keyboard.press((held = now), loud(x));
    },
    done: release,
    cancel: release,
  };
}

/** A click on the ruler moves the cursor; a drag is a region of whole bars over all pitches, and the loop. */
function ruler(tools, { tick }, x0) {
  const piece = tools.studio.shown,
    first = bars(piece)[barAt(piece, tick)].tick;
  let region = null;
  return {
    scrolls: "time",
    move: (x) => {
      if (!region && Math.abs(x - x0) < STILL) return;
      const other = Math.max(0, tools.roll.tickAt(x)),
        low = Math.min(other, first),
        high = Math.max(other, tick);
      region = { start: bars(piece)[barAt(piece, low)].tick, end: barEnd(piece, high), low: 0, high: 128 };
      tools.studio.setRegion(region);
    },
    done: () => (region ? tools.studio.setRegion(region, true) : tools.studio.transport.seek(tools.snap(tick))),
  };
}

function velocities(tools, x0, y0) {
  const { studio, roll } = tools;
  if (!studio.editable) return null;
  const ids = new Map(),
    paint = (x, y) => {
      const near = roll.stemsAt(x),
        chosen = near.filter(({ id }) => studio.selection.has(id));
      for (const { id } of studio.selection.size ? chosen : near) ids.set(id, roll.velocityAt(y));
      if (ids.size) studio.draft(edit.setVelocity(studio.piece, new Set(ids.keys()), ({ id }) => ids.get(id)));
    };
  paint(x0, y0);
  return { move: paint, done: () => ids.size && studio.keep("velocity", ids.size) };
}

function erase(tools, hit) {
  const gone = new Set(),
    { studio } = tools;
  const wipe = ({ note }) => {
    if (!note || gone.has(note.id)) return;
    gone.add(note.id);
    studio.draft(edit.remove(studio.piece, gone));
  };
  wipe(hit);
  return {
    scrolls: "both",
    move: (x, y) => wipe(tools.roll.hit(x, y)),
    done: () => gone.size && studio.keep("delete", gone.size),
  };
}

export function draw(tools, { tick, pitch }) {
  const { studio } = tools,
    start = tools.snap(tick, false, Math.floor);
  const last = studio.lastLength ?? tools.grid * 2,
    note = { pitch, start, duration: last, velocity: studio.lastVelocity };
  let drawn = edit.add(studio.piece, [note]),
    long = last;
  studio.draft(drawn.piece);
  studio.select(drawn.ids);
  studio.transport.touch(pitch, note.velocity);
  return {
    scrolls: "time",
    move: (x) => {
      long = Math.max(tools.grid, tools.snap(tools.roll.tickAt(x), false, Math.ceil) - start);
      drawn = edit.add(studio.piece, [{ ...note, duration: long }]);
      studio.draft(drawn.piece);
    },
    done: () => {
      studio.lastLength = long;
      studio.keep("add", 1);
    },
  };
}

/** Selects a note; with `more` it joins the selected ones, or leaves them. */
export function choose(studio, note, more = false) {
  const one = new Set([note.id]);
  if (more) studio.select(studio.selection.symmetricDifference(one));
  else if (!studio.selection.has(note.id)) studio.select(one);
  studio.lastVelocity = note.velocity;
}

function dragNotes(tools, { note, edge, tick, pitch }, event, x0, y0) {
  const { studio, roll } = tools,
    more = event.shiftKey,
    copy = event.ctrlKey || event.metaKey;
  const alone = !studio.selection.has(note.id);
  if (more || alone) choose(studio, note, more);
  studio.transport.touch(note.pitch, note.velocity);
  let moved = false,
    ids = studio.selection,
    from = studio.piece,
    sounded = pitch;
  return {
    scrolls: "both",
    move: (x, y, { altKey }) => {
      if (!moved && Math.hypot(x - x0, y - y0) < 3) return;
      if (!moved && copy) {
        const copied = from.notes.filter(({ id }) => ids.has(id));
        ({ piece: from, ids } = edit.add(from, copied));
        studio.select(ids);
      }
      moved = true;
      const by = roll.tickAt(x) - tick,
        step = (at) => tools.snap(at + by, altKey) - at;
      if (edge === "end") studio.draft(edit.resize(from, ids, step(note.start + note.duration)));
      else if (edge === "start") studio.draft(edit.trim(from, ids, step(note.start)));
      else {
        const higher = roll.pitchAt(y) - pitch;
        studio.draft(edit.move(from, ids, step(note.start), higher));
        if (pitch + higher !== sounded) studio.transport.touch((sounded = pitch + higher), note.velocity);
      }
    },
    done: () => {
      if (moved) studio.keep(edge ? "resize" : copy ? "copy" : "move", ids.size);
      else if (!more && !alone && studio.selection.size > 1) studio.select(new Set([note.id]));
    },
  };
}

/** A rectangle: the region to compose, and a selection of the notes in it. */
export function dragRegion(tools, { tick, pitch }, x0, y0) {
  const { studio, roll } = tools;
  let region = null;
  return {
    scrolls: "both",
    move: (x, y, { altKey }) => {
      if (!region && Math.hypot(x - x0, y - y0) < STILL) return;
      const other = Math.max(0, roll.tickAt(x)),
        end = roll.pitchAt(y);
      const grid = altKey ? tools.grid : Math.max(tools.grid, edit.QUARTER); // beats
      region = {
        start: Math.floor(Math.min(tick, other) / grid) * grid,
        end: Math.ceil(Math.max(tick, other, 1) / grid) * grid,
        low: Math.min(pitch, end),
        high: Math.max(pitch, end) + 1,
      };
      studio.marquee = region;
      studio.select(edit.idsOf(edit.inside(studio.shown, region)), true);
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

/** The edge of the region ("start" or "end") at a point, or null. */
export function frameEdge(tools, x, y) {
  const { region } = tools.studio,
    { roll } = tools;
  if (!region || y < roll.y(region.high - 1) || y > roll.y(region.low) + roll.row) return null;
  return ["start", "end"].find((side) => Math.abs(roll.x(region[side]) - x) <= 5) ?? null;
}

function dragFrame(tools, side) {
  const { studio, roll } = tools,
    from = studio.region;
  return {
    scrolls: "time",
    move: (x) => {
      const tick = tools.snap(roll.tickAt(x));
      const region = {
        ...from,
        [side]: side === "start" ? clamp(tick, 0, from.end - tools.grid) : Math.max(tick, from.start + tools.grid),
      };
      studio.setRegion(region);
    },
    done: () => studio.setRegion(studio.region, true),
  };
}
