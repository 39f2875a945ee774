/** Edits of the selected notes and of the bars, the clipboard, and the menu of the selection. */
import * as dialogs from "./dialogs.js";
import * as edit from "./document.js";
import { t } from "./i18n.js";
import { Keyboard } from "./midi.js";

export class Editor {
  #clipboard = null;

  constructor(studio) {
    this.studio = studio;
  }

  // ---- the selected notes ----

  /** An edit of the selected notes, if there are any. */
  change(kind, how, { merge = null } = {}) {
    const { studio } = this,
      { selection } = studio;
    if (!selection.size || !studio.editable) return false;
    const same = merge && `${merge} ${[...selection]}`;
    studio.commit(kind, how(studio.piece, selection), { n: selection.size, merge: same });
    return true;
  }

  nudge(later, higher) {
    return this.change("move", (piece, ids) => edit.move(piece, ids, later, higher), { merge: "move" });
  }

  remove(ids = this.studio.selection) {
    const { studio } = this;
    if (ids.size) studio.commit("delete", edit.remove(studio.piece, ids), { n: ids.size });
  }

  quantise() {
    this.change("quantise", (piece, ids) => edit.quantise(piece, ids, this.studio.tools.grid));
  }

  toggleLock() {
    const on = this.studio.chosen.some(({ locked }) => !locked);
    this.change(on ? "lock" : "unlock", (piece, ids) => edit.setLock(piece, ids, on));
  }

  setHand(hand) {
    this.change("hand", (piece, ids) => edit.setHand(piece, ids, hand));
  }

  // ---- copies ----

  copy(cut = false) {
    const { chosen: notes, tools } = this.studio;
    if (!notes.length) return;
    this.#clipboard = { notes, from: tools.snap(notes[0].start, false, Math.floor) };
    if (cut) this.remove();
    else dialogs.say(t("did.copy", { n: notes.length }));
  }

  paste(at = this.studio.tools.snap(this.studio.cursor)) {
    if (this.#clipboard) this.#place(this.#clipboard, at, "paste");
  }

  duplicate() {
    const { studio } = this,
      { chosen: notes, piece, region } = studio;
    if (!notes.length) return;
    const from = region?.start ?? edit.barStart(piece, notes[0].start),
      end = region?.end ?? edit.barEnd(piece, edit.endOf(notes));
    this.#place({ notes, from }, end, "duplicate");
    if (region) studio.setRegion({ ...region, start: end, end: 2 * end - from });
  }

  #place({ notes, from }, at, kind) {
    const { studio } = this;
    if (!studio.editable) return studio.refuse();
    const { piece, ids } = edit.add(
      studio.piece,
      notes.map((note) => ({ ...note, locked: 0, start: note.start - from + at })),
    );
    studio.commit(kind, piece, { n: ids.size });
    studio.select(ids);
    studio.roll.reveal(at);
    if (kind !== "paste" || studio.playing) return;
    const end = edit.endOf(piece.notes.filter(({ id }) => ids.has(id)));
    studio.transport.seek(studio.tools.snap(end, false, Math.ceil)); // the next copy goes behind this one
  }

  // ---- bars ----

  insertBars(count) {
    const { studio } = this,
      { piece } = studio;
    const at = edit.barStart(piece, studio.cursor),
      length = count * edit.barLength(piece, Math.max(0, at - 1)); // a change of meter moves on
    studio.commit("insert", edit.insertTime(piece, at, length), { n: count });
    studio.setRegion({ start: at, end: at + length, low: 0, high: 128 }, true);
  }

  /** Ends the piece where the region ends, or else with the bar of a tick; at the start, after its last note. */
  trim(at = this.studio.cursor) {
    const { piece, region } = this.studio,
      ended = edit.endAt(piece, region?.end ?? edit.barEnd(piece, at || edit.endOf(piece.notes)));
    if (JSON.stringify(ended) !== JSON.stringify(piece)) this.studio.commit("trim", ended);
  }

  // ---- one note by keyboard ----

  addNote() {
    const { studio } = this,
      { tools } = studio;
    const { piece, ids } = edit.add(studio.piece, [
      {
        pitch: studio.lastPitch ?? 60,
        start: tools.snap(studio.cursor, false, Math.floor),
        duration: studio.lastLength ?? tools.grid * 2,
        velocity: studio.lastVelocity,
      },
    ]);
    studio.commit("add", piece, { n: 1 });
    studio.select(ids);
    this.tell();
  }

  /** The next or the last note becomes the chosen one. */
  step(by) {
    const { studio } = this,
      { notes } = studio.piece;
    const chosen = notes.findIndex(({ id }) => studio.selection.has(id)),
      near = notes.findIndex(({ start }) => start >= studio.cursor);
    const note = notes[chosen < 0 ? Math.max(0, near) : edit.clamp(chosen + by, 0, notes.length - 1)];
    if (!note) return;
    studio.select(new Set([note.id]));
    studio.roll.reveal(note.start, note.pitch);
    studio.transport.touch(note.pitch, note.velocity);
    this.tell();
  }

  /** Says what is chosen to those who do not see it. */
  tell() {
    const { studio } = this,
      [note] = studio.chosen;
    if (!note) return;
    studio.lastPitch = note.pitch;
    dialogs.say(studio.view.describe(note));
  }

  // ---- the menu ----

  selectAll() {
    this.studio.select(edit.idsOf(this.studio.piece.notes));
  }

  /** Selects the notes of a hand. */
  pick(hand) {
    this.studio.select(edit.idsOf(this.studio.piece.notes.filter((note) => note.hand === hand)));
  }

  /** Opens at a point of the canvas; `at`: the tick that is meant. */
  openMenu(x, y, at = this.studio.cursor) {
    const { studio } = this,
      some = studio.selection.size > 0,
      { left, top } = studio.roll.canvas.getBoundingClientRect();
    dialogs.openMenu(
      [
        ["edit.copy", () => this.copy(), "ctrl+C", some],
        ["edit.cut", () => this.copy(true), "ctrl+X", some],
        ["edit.paste", () => this.paste(), "ctrl+V", Boolean(this.#clipboard)],
        ["edit.duplicate", () => this.duplicate(), "ctrl+D", some],
        ["edit.delete", () => this.remove(), "del", some],
        null,
        ["edit.up", () => this.nudge(0, 12), "shift+↑", some],
        ["edit.down", () => this.nudge(0, -12), "shift+↓", some],
        ["edit.quantise", () => this.quantise(), "Q", some],
        ["edit.lock", () => this.toggleLock(), "K", some],
        ["edit.right", () => this.setHand(0), "", some],
        ["edit.left", () => this.setHand(1), "", some],
        null,
        ["edit.pick.right", () => this.pick(0)],
        ["edit.pick.left", () => this.pick(1)],
        ["edit.insert", () => this.insertBars(4)],
        ["edit.trim", () => this.trim(at), "", studio.piece.length > 0],
        ["edit.all", () => this.selectAll(), "ctrl+A"],
        ["midi", () => studio.transport.connectKeyboard(), "", Keyboard.possible],
        ["help", dialogs.showHelp, "?"],
      ],
      left + x,
      top + y,
    );
  }
}
