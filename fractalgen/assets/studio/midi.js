/** A MIDI keyboard: it is heard at once, and its notes are recorded where the cursor is. */

/** Events: "change" (devices, recording), "recorded" (`detail`: notes). */
export class Keyboard extends EventTarget {
  devices = [];
  recording = false;
  #held = new Map();
  #notes = [];

  constructor(player) {
    super();
    this.player = player;
  }

  static get possible() {
    return Boolean(navigator.requestMIDIAccess);
  }

  /** Asks the browser for the keyboards; throws what the browser says. */
  async connect() {
    if (this.access) return;
    this.access = await navigator.requestMIDIAccess();
    const find = () => {
      this.devices = [...this.access.inputs.values()];
      for (const device of this.devices) device.onmidimessage = (event) => this.#hear(event.data);
      this.dispatchEvent(new Event("change"));
    };
    this.access.onstatechange = find;
    find();
  }

  start() {
    this.#notes = [];
    this.recording = true;
    this.dispatchEvent(new Event("change"));
  }

  stop() {
    for (const pitch of [...this.#held.keys()]) this.release(pitch);
    this.recording = false;
    this.dispatchEvent(new Event("change"));
    if (this.#notes.length) this.dispatchEvent(new CustomEvent("recorded", { detail: this.#notes }));
  }

  #hear([status, pitch, velocity]) {
    const kind = status & 0xf0;
    if (kind === 0x90 && velocity) this.press(pitch, velocity);
    else if (kind === 0x80 || kind === 0x90) this.release(pitch);
  }

  async press(pitch, velocity) {
    const start = this.player.tick;
    this.#held.set(pitch, { start, velocity });
    const strike = await this.player.touch(pitch, velocity, 30);
    const held = this.#held.get(pitch);
    if (held?.start === start) held.strike = strike;
    else strike?.release();
  }

  release(pitch) {
    const held = this.#held.get(pitch);
    this.#held.delete(pitch);
    held?.strike?.release();
    if (!held || !this.recording || !this.player.playing) return;
    const duration = this.player.tick - held.start;
    if (duration > 0)
      this.#notes.push({
        pitch,
        start: Math.round(held.start),
        duration: Math.max(30, Math.round(duration)),
        velocity: held.velocity,
      });
  }
}
