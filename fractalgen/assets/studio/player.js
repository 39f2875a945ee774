/** The transport: plays what is there at the moment, so that edits and new patches are heard as they come. */
import { Piano } from "../player/piano.js";
import { QUARTER, bars, barEnd, seconds } from "./document.js";

const STRIDE = 120; // ticks that are planned together
const PATIENCE = 3000; // milliseconds in which sound must begin
const ahead = () => (document.hidden ? 1.3 : 0.15); // seconds: a page in the background is woken once a second

/** Events: "state" (playing or not), "frame" while it plays, "silent" if the browser does not begin. */
export class Player extends EventTarget {
  playing = false;
  looping = false;
  metronome = false;
  sustain = false;
  volume = 0.8;
  #at = 0; // the cursor while it rests
  #plan = []; // stretches that are planned: {time, from, to, rate (seconds a tick)}
  #strikes = []; // keys that are down or will be: {pitch, from, to (seconds)}

  /** `source()`: `{piece, end, limit, loop}`; it plays to the tick `end`, and beyond `limit` there is nothing yet. */
  constructor(source) {
    super();
    this.source = source;
  }

  /** Sound needs a touch of the person; the samples are loaded once. */
  async wake() {
    if (!this.context) {
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.out = new GainNode(this.context, { gain: this.volume });
      this.out.connect(this.context.destination);
      this.piano = new Piano(this.context, this.out);
    }
    if (this.context.state !== "running") this.context.resume();
    this.loading ??= this.piano.load("/static/piano/").catch(() => (this.loading = null)); // the next touch tries again
    await this.loading;
  }

  setVolume(value) {
    this.volume = value;
    this.out?.gain.setTargetAtTime(value ** 1.5, this.context.currentTime, 0.02);
  }

  /** Where the music is, in ticks. */
  get tick() {
    if (!this.playing) return this.#at;
    const now = this.context.currentTime;
    const stretch = this.#plan.findLast(({ time }) => time <= now);
    return stretch ? Math.min(stretch.to, stretch.from + (now - stretch.time) / stretch.rate) : this.#at;
  }

  /** Pitches that sound at the moment. */
  get sounding() {
    const now = this.context?.currentTime ?? 0;
    this.#strikes = this.#strikes.filter(({ to }) => to > now);
    return new Set(this.#strikes.filter(({ from }) => from <= now).map(({ pitch }) => pitch));
  }

  seek(tick) {
    this.#at = Math.max(0, tick);
    if (this.playing) this.#restart();
    this.dispatchEvent(new Event("frame"));
  }

  async play(from = this.#at) {
    await this.wake();
    const { end, loop } = this.source();
    this.#at = from >= end ? 0 : from;
    if (this.looping && loop && (this.#at < loop.start || this.#at >= loop.end)) this.#at = loop.start;
    this.playing = true;
    this.#restart();
    clearInterval(this.timer);
    this.timer = setInterval(() => this.#schedule(), 40);
    clearTimeout(this.doubt);
    this.doubt = setTimeout(() => {
      if (this.playing && this.context.state !== "running") this.dispatchEvent(new Event("silent"));
    }, PATIENCE);
    this.dispatchEvent(new Event("state"));
    this.#frame();
  }

  pause() {
    if (!this.playing) return;
    this.#at = this.tick;
    this.playing = false;
    clearInterval(this.timer);
    this.#silence();
    this.dispatchEvent(new Event("state"));
  }

  /** One note at once, as a key that is touched. */
  async touch(pitch, velocity = 80, duration = 0.45) {
    await this.wake();
    return this.#strike(pitch, velocity, this.context.currentTime, this.context.currentTime + duration);
  }

  #restart() {
    this.#silence();
    this.#plan = [];
    this.next = this.#at;
    this.time = this.context.currentTime + 0.06;
    const { piece } = this.source();
    for (const note of piece.notes) {
      const rest = note.start + note.duration - this.#at;
      if (note.start < this.#at && rest > 60) this.#sound(piece, note, this.time, this.#at);
    }
    this.#schedule();
  }

  #silence() {
    this.piano.stopAll();
    this.#strikes = [];
  }

  #schedule() {
    const { context } = this,
      until = context.currentTime + ahead();
    while (this.playing && this.time < until) {
      const { piece, limit, loop, end: last } = this.source(),
        looping = this.looping && loop && loop.end > this.next;
      const end = looping ? loop.end : last;
      const to = Math.min(this.next + STRIDE, end, limit);
      if (to <= this.next) {
        this.time = Math.max(this.time, context.currentTime); // waits for what is being composed, or ends
        if (limit < end) return;
        if (context.currentTime >= (this.#plan.at(-1)?.time ?? 0) + STRIDE / 2000) this.#ended(loop);
        return;
      }
      const rate = (seconds(piece, to) - seconds(piece, this.next)) / (to - this.next);
      this.#plan.push({ time: this.time, from: this.next, to, rate });
      for (const note of piece.notes)
        if (note.start >= this.next && note.start < to)
          this.#sound(piece, note, this.time + (note.start - this.next) * rate, note.start);
      if (this.metronome) this.#clicks(piece, to, rate);
      this.time += (to - this.next) * rate;
      this.next = looping && to >= loop.end ? loop.start : to;
    }
    while (this.#plan.length > 2 && this.#plan[1].time < context.currentTime - 1) this.#plan.shift();
  }

  #ended(loop) {
    const back = this.looping && loop ? loop.start : 0;
    this.pause();
    this.seek(back);
  }

  /** A note from a tick inside it on. */
  #sound(piece, note, when, from) {
    let end = note.start + note.duration;
    if (this.sustain) end = Math.max(end, pedalUp(piece, note.start));
    this.#strike(note.pitch, note.velocity, when, when + seconds(piece, end) - seconds(piece, from));
  }

  #strike(pitch, velocity, from, to) {
    this.#strikes.push({ pitch, from, to });
    return this.piano.strike({ pitch, velocity: velocity / 127 }, from, to);
  }

  #clicks(piece, to, rate) {
    for (const { tick, ticks: long, unit } of bars(piece)) {
      if (tick + long <= this.next || tick >= to) continue;
      for (let beat = tick; beat < tick + long; beat += (4 * QUARTER) / unit)
        if (beat >= this.next && beat < to) this.#click(this.time + (beat - this.next) * rate, beat === tick);
    }
  }

  #click(when, strong) {
    const tone = new OscillatorNode(this.context, { frequency: strong ? 1760 : 1175, type: "triangle" });
    const gain = new GainNode(this.context, { gain: 0 });
    gain.gain.setValueAtTime(strong ? 0.25 : 0.14, when);
    gain.gain.exponentialRampToValueAtTime(0.0005, when + 0.05);
    tone.connect(gain).connect(this.out);
    tone.start(when);
    tone.stop(when + 0.06);
  }

  #frame() {
    if (!this.playing) return;
    this.dispatchEvent(new Event("frame"));
    requestAnimationFrame(() => this.#frame());
  }
}

/** The pedal is lifted where the chord changes, and at bar lines. */
function pedalUp(piece, start) {
  const chord = piece.chords.find(([tick]) => tick > start)?.[0] ?? Infinity;
  return Math.min(chord, barEnd(piece, start + 1));
}
