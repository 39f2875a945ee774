/** The piece as the page edits it: plain data and pure functions.  Times are ticks, 480 a quarter. */
import { clamp, isBlack, pitchName as nameOf } from "../player/notes.js";

export { clamp, isBlack };

export const QUARTER = 480,
  GRID = 120;
const FIELDS = ["id", "pitch", "start", "duration", "velocity", "hand", "locked"];

export const readNotes = (rows) => rows.map((row) => Object.fromEntries(FIELDS.map((name, i) => [name, row[i]])));
export const read = (raw) => settled({ ...raw, notes: readNotes(raw.notes) });
export const write = (piece) => ({ ...piece, notes: piece.notes.map((note) => FIELDS.map((name) => note[name])) });
export const empty = () => ({
  length: 0,
  tempos: [[0, 120]],
  meters: [[0, 4, 4]],
  key: null,
  notes: [],
  chords: [],
  sections: [],
});

export const idsOf = (notes) => new Set(notes.map(({ id }) => id));
/** The tick at which the last of some notes ends, or 0. */
export const endOf = (notes) => notes.reduce((most, { start, duration }) => Math.max(most, start + duration), 0);

export const byTime = (one, other) => one.start - other.start || one.pitch - other.pitch;

/** Notes in order, and whole bars that hold them all. */
function settled(piece) {
  const notes = piece.notes.toSorted(byTime);
  const end = endOf(notes);
  return { ...piece, notes, length: end > piece.length ? barEnd(piece, end) : piece.length };
}

// ---- bars and seconds ----

const timelines = new WeakMap();

/** Bars of the piece and of 64 more behind its end: `{tick, ticks, beats, unit}`. */
export function bars(piece) {
  if (!timelines.has(piece)) timelines.set(piece, counted(piece));
  return timelines.get(piece);
}

const wholeBar = (beats, unit) => (beats * 4 * QUARTER) / unit;

function counted({ meters, length }) {
  const found = [],
    changes = meters.length ? meters : [[0, 4, 4]];
  let tick = 0,
    change = 0,
    after = 0;
  while (after < 64) {
    while (changes[change + 1]?.[0] <= tick) change++;
    const [, beats, unit] = changes[change],
      next = changes[change + 1]?.[0] ?? Infinity;
    const ticks = Math.min(wholeBar(beats, unit), next - tick);
    found.push({ tick, ticks, beats, unit });
    tick += ticks;
    if (tick > length) after++;
  }
  return found;
}

export const barCount = (piece) => bars(piece).filter(({ tick }) => tick < piece.length).length;
export const barAt = (piece, tick) =>
  Math.max(
    0,
    bars(piece).findLastIndex((bar) => bar.tick <= tick),
  );
/** The length of a whole bar in the meter at a tick. */
export function barLength(piece, tick) {
  const { beats, unit } = bars(piece)[barAt(piece, tick)];
  return wholeBar(beats, unit);
}
export const barStart = (piece, tick) => bars(piece)[barAt(piece, tick)].tick;
/** The first bar line that is not before a tick. */
export const barEnd = (piece, tick) => bars(piece).find((bar) => bar.tick >= tick)?.tick ?? tick;

/** Bar, beat and sixteenth of a tick, counted from 1. */
export function place(piece, tick) {
  const index = barAt(piece, tick),
    bar = bars(piece)[index],
    beat = (4 * QUARTER) / bar.unit,
    inside = tick - bar.tick;
  return { bar: index + 1, beat: Math.floor(inside / beat) + 1, step: Math.floor((inside % beat) / GRID) + 1 };
}

/** Bars of a range as people number them: "5-8". */
export const barRange = (piece, { start, end }) => {
  const first = barAt(piece, start) + 1,
    last = barAt(piece, Math.max(start, end - 1)) + 1;
  return first === last ? `${first}` : `${first}-${last}`;
};

const clocks = new WeakMap();

/** Stretches of one tempo: `[tick, seconds, seconds a tick]`. */
function clock({ tempos }) {
  if (!clocks.has(tempos)) {
    const stretches = [];
    for (const [tick, bpm] of tempos.length ? tempos : [[0, 120]]) {
      const [from, at, rate] = stretches.at(-1) ?? [0, 0, 0];
      stretches.push([tick, at + (tick - from) * rate, 60 / bpm / QUARTER]);
    }
    clocks.set(tempos, stretches);
  }
  return clocks.get(tempos);
}

export function seconds(piece, tick) {
  const [from, at, rate] = clock(piece).findLast(([start]) => start <= tick) ?? clock(piece)[0];
  return at + (tick - from) * rate;
}

export const tempoAt = (piece, tick) => piece.tempos.findLast(([start]) => start <= tick)?.[1] ?? 120;

/** Names of notes: flats in the keys that are written so. */
const FLAT_KEYS = /^([A-G]b|F|D minor|G minor|C minor|F minor)/;
export const pitchName = (pitch, key = null) => nameOf(pitch, FLAT_KEYS.test(key ?? ""));

// ---- edits: each returns a new piece ----

const changed = (piece, ids, change) =>
  settled({ ...piece, notes: piece.notes.map((note) => (ids.has(note.id) ? { ...note, ...change(note) } : note)) });

/** Adds notes, which get new ids; also returns those ids. */
export function add(piece, notes) {
  const first = piece.notes.reduce((most, { id }) => Math.max(most, id), -1) + 1;
  const added = notes.map((note, i) => ({ velocity: 80, hand: -1, locked: 0, ...note, id: first + i }));
  return { piece: settled({ ...piece, notes: [...piece.notes, ...added] }), ids: idsOf(added) };
}

export const remove = (piece, ids) => ({ ...piece, notes: piece.notes.filter(({ id }) => !ids.has(id)) });

/** Moves notes together, as far as the first of them may go. */
export function move(piece, ids, later, higher) {
  const notes = piece.notes.filter(({ id }) => ids.has(id));
  const most = (values) => Math.max(...values),
    least = (values) => Math.min(...values);
  const dt = Math.max(later, -least(notes.map(({ start }) => start)));
  const room = clamp(higher, -least(notes.map(({ pitch }) => pitch)), 127 - most(notes.map(({ pitch }) => pitch)));
  const dp = higher % 12 ? room : 12 * Math.trunc(room / 12); // octaves stay octaves
  return changed(piece, ids, ({ start, pitch }) => ({ start: start + dt, pitch: pitch + dp }));
}

const LEAST = 30; // ticks to which a note can be shortened

export const resize = (piece, ids, longer) =>
  changed(piece, ids, ({ duration }) => ({ duration: Math.max(Math.min(LEAST, duration), duration + longer) }));
/** Moves the beginnings of notes; their ends stay. */
export const trim = (piece, ids, later) =>
  changed(piece, ids, ({ start, duration }) => {
    const by = clamp(later, -start, duration - LEAST);
    return { start: start + by, duration: duration - by };
  });
export const setVelocity = (piece, ids, value) =>
  changed(piece, ids, (note) => ({ velocity: clamp(Math.round(value(note)), 1, 127) }));
export const setLock = (piece, ids, locked) => changed(piece, ids, () => ({ locked: +locked }));
export const setHand = (piece, ids, hand) => changed(piece, ids, () => ({ hand }));
export const quantise = (piece, ids, grid) =>
  changed(piece, ids, ({ start, duration }) => ({
    start: Math.round(start / grid) * grid,
    duration: Math.max(grid, Math.round(duration / grid) * grid),
  }));

/** Puts a text at a tick of a lane ("chords" or "sections"); an empty one takes what is there away. */
export function setLane(piece, lane, tick, text) {
  const others = piece[lane].filter(([at]) => at !== tick);
  return { ...piece, [lane]: (text ? [...others, [tick, text]] : others).toSorted(([one], [other]) => one - other) };
}

/** A tempo at a tick; all others change by the same share. */
export function setTempo(piece, tick, bpm) {
  const share = bpm / tempoAt(piece, tick),
    tempos = piece.tempos.length ? piece.tempos : [[0, 120]];
  return { ...piece, tempos: tempos.map(([at, old]) => [at, clamp(Math.round(old * share * 1000) / 1000, 4, 1000)]) };
}

/** A meter from the bar of a tick to the next change. */
export function setMeter(piece, tick, beats, unit) {
  const start = barStart(piece, tick),
    others = piece.meters.filter(([at]) => at !== start);
  const changed = { ...piece, meters: [...others, [start, beats, unit]].toSorted(([one], [other]) => one - other) };
  return settled({ ...changed, length: barEnd(changed, piece.length) }); // it ends with a whole bar
}

export const setLength = (piece, length) => settled({ ...piece, length });

export const LANES = ["tempos", "meters", "chords", "sections"];

/** Ends a piece: notes that sound longer are cut, and nothing is left behind the end. */
export function endAt(piece, length) {
  const notes = piece.notes
    .filter(({ start }) => start < length)
    .map((note) => ({ ...note, duration: Math.min(note.duration, length - note.start) }));
  const lanes = Object.fromEntries(LANES.map((name) => [name, piece[name].filter(([at]) => at < length)]));
  return settled({ ...piece, ...lanes, notes, length });
}

/** Empty time at a tick: all that begins later moves on; the first tempo and meter stay. */
export function insertTime(piece, tick, length) {
  const later = (at) => (at >= tick ? at + length : at);
  const lane = (changes, first) => changes.map(([at, ...rest]) => [at || !first ? later(at) : 0, ...rest]);
  const notes = piece.notes.map((note) => ({ ...note, start: later(note.start) }));
  const lanes = Object.fromEntries(
    LANES.map((name) => [name, lane(piece[name], name === "tempos" || name === "meters")]),
  );
  return settled({ ...piece, ...lanes, notes, length: Math.max(piece.length, tick) + length });
}

/** Notes that begin in a region. */
export const inside = ({ notes }, { start, end, low, high }) =>
  notes.filter((note) => note.start >= start && note.start < end && note.pitch >= low && note.pitch < high);
