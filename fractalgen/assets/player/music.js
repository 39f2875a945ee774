/* The music of a piece: every note is struck a little ahead of time. */
import { clamp } from "./notes.js";
import { Piano } from "./piano.js";

const AHEAD = 1.2; // seconds: a page in the background is woken only once a second

export class Music {
  /**
   * `notes`: {pitch, velocity (0 to 1), start, end (steps)} in their order; `clock`: seconds at which each step begins,
   * and the last one ends; `samples()`: what `Piano.load` takes; `changed()` is called when it begins or ends.
   */
  constructor(notes, clock, samples, changed) {
    Object.assign(this, { notes, clock, samples, changed, end: clock.at(-1), playing: false, at: 0, since: 0, next: 0 });
  }

  /** Seconds of the piece that were heard. */
  get heard() {
    const moves = this.playing && this.since;
    return moves ? clamp(this.at + this.context.currentTime - this.since, 0, this.end) : this.at;
  }

  /** Play or pause, from where it is or from the given second.  The first time the samples are decoded before. */
  async listen(on, from = this.heard) {
    clearInterval(this.timer);
    this.piano?.stopAll();
    Object.assign(this, { at: on && from >= this.end ? 0 : clamp(from, 0, this.end), playing: on, since: 0, next: 0 });
    this.changed();
    if (!on) return;
    this.context ??= new AudioContext(); // allowed only where a person has asked for it
    this.context.resume();
    this.piano ??= new Piano(this.context);
    this.loaded ??= this.piano.load(this.samples());
    await this.loaded;
    if (!this.playing || this.since) return; // meanwhile it was stopped, or begun anew
    this.since = this.context.currentTime + 0.08;
    this.timer = setInterval(() => this.schedule(), 100);
    this.schedule();
  }

  schedule() {
    const { context, notes, clock } = this, now = context.currentTime;
    if (this.heard >= this.end) {
      this.listen(false, 0);
      return;
    }
    for (; this.next < notes.length; this.next++) {
      const note = notes[this.next], zero = this.since - this.at; // when the piece began, or would have
      const start = zero + clock[note.start], end = zero + clock[note.end];
      if (start > now + AHEAD) break;
      if (end > now) this.piano.strike(note, Math.max(start, now), end); // also one begun before
    }
  }
}
