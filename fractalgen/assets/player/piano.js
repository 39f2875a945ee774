/* A sampled grand piano in a small room.  Nothing is read from the page; the samples are given to `load`. */

const DAMPING = 0.07; // seconds: the time constant of a tone whose key is let go
const ATTACK = 0.002; // seconds in which a tone fades in, so that nothing clicks
const VOLUME = 0.6; // a loud piece of piano music then hardly touches the limiter
const KNEE = 0.7, PEAK = 0.98, MOST = 8; // where the limiter begins and ends, and the loudest sum that it tells apart
const ROOM = { seconds: 0.9, share: 0.015 }; // of the power: more would lift some keys above others
const WIDTH = 0.35; // how far the lowest and the highest key are from the middle (0) to one loudspeaker (1)

export class Piano {
  /** Sounds in an AudioContext (an offline one, too), at a node of it, by default the loudspeakers. */
  constructor(context, destination = context.destination) {
    this.context = context;
    this.samples = [];
    this.voices = new Set();
    this.input = new GainNode(context, { gain: VOLUME / MOST });
    const limiter = new WaveShaperNode(context, { curve: bend() }); // a compressor would duck the first notes
    const room = new ConvolverNode(context, { buffer: echoes(context), disableNormalization: true });
    this.input.connect(limiter).connect(destination);
    this.input.connect(room).connect(limiter);
  }

  /**
   * Fetch and decode samples: from the folder of an address, which holds samples.json, or from its content with
   * `data` (base64) instead of each `file`.  Notes struck before this has ended are silent.
   */
  async load(source) {
    const folder = typeof source === "string" ? source.replace(/\/*$/, "/") : null;
    const get = async (file) => {
      const answer = await fetch(folder + file);
      if (!answer.ok) throw new Error(`${folder + file}: ${answer.status} ${answer.statusText}`);
      return answer;
    };
    const table = folder ? await (await get("samples.json")).json() : source;
    this.samples = await Promise.all(table.notes.map(async ({ pitch, gain, file, data }) => {
      const bytes = folder ? await (await get(file)).arrayBuffer() : Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer;
      const buffer = await this.context.decodeAudioData(bytes);
      return { pitch, gain, buffer, begin: attackOf(buffer) };
    }));
  }

  /**
   * Strike a key: pitch 0 to 127, velocity 0 to 1, from `when` to `end` in the context's seconds; without an end it is
   * held.  `release(when)` of the answer lets it go, now or then.
   */
  strike({ pitch, velocity }, when = this.context.currentTime, end = Infinity) {
    const { context, samples, voices } = this;
    if (!samples.length) return { release() {} };
    const { buffer, begin, gain, pitch: own } = nearest(samples, pitch);
    const frequency = Math.min(brightness(pitch, velocity), 0.45 * context.sampleRate);
    const source = new AudioBufferSourceNode(context, { buffer, playbackRate: 2 ** ((pitch - own) / 12) });
    const filter = new BiquadFilterNode(context, { frequency, Q: -6.02 }); // as two low passes of the first order
    const damper = new GainNode(context, { gain: 0 });
    const start = Math.max(when, context.currentTime);
    damper.gain.setValueAtTime(0, start);
    damper.gain.linearRampToValueAtTime(gain * (0.1 + 0.9 * velocity) ** 2, start + ATTACK);
    const placed = buffer.numberOfChannels > 1 ? damper : damper.connect(new StereoPannerNode(context, { pan: side(pitch) }));
    source.connect(filter).connect(damper);
    placed.connect(this.input);
    source.start(start, begin);
    const release = (at = context.currentTime, constant = DAMPING) => {
      damper.gain.cancelScheduledValues(at);
      damper.gain.setTargetAtTime(0, at, constant);
      source.stop(at + 8 * constant);
    };
    if (end < Infinity) release(Math.max(end, start + 2 * ATTACK));
    const voice = { release };
    voices.add(voice);
    source.onended = () => {
      voices.delete(voice);
      placed.disconnect();
    };
    return voice;
  }

  /** Silence, also of what is yet to begin. */
  stopAll() {
    for (const { release } of this.voices) release(this.context.currentTime, 0.02);
  }
}

/** Hz above which a tone is dull: a hard hammer excites high partials. */
const brightness = (pitch, velocity) => (600 + 880 * 2 ** ((pitch - 69) / 12)) * 2 ** (4.5 * velocity);

/** -1: the left loudspeaker, 1: the right one. */
const side = (pitch) => (WIDTH * (pitch - 64)) / 64;

const nearest = (samples, pitch) =>
  samples.reduce((best, one) => (Math.abs(one.pitch - pitch) < Math.abs(best.pitch - pitch) ? one : best));

/** Seconds of a decoded sample before its attack: some decoders put silence in front. */
function attackOf(buffer) {
  const sound = buffer.getChannelData(0);
  const loud = 0.02 * sound.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return Math.max(0, sound.findIndex((value) => Math.abs(value) > loud) / buffer.sampleRate - ATTACK);
}

/** The limiter: as it is up to the knee, then ever less, to the peak. */
function bend() {
  const beyond = (loud) => KNEE + (PEAK - KNEE) * Math.tanh((loud - KNEE) / (PEAK - KNEE));
  return Float32Array.from({ length: 8193 }, (_, i) => {
    const sum = MOST * (i / 4096 - 1), loud = Math.abs(sum);
    return loud < KNEE ? sum : Math.sign(sum) * beyond(loud);
  });
}

/** What a small room gives back of a click: noise that dies away, the same at every call. */
function echoes(context) {
  const length = Math.round(ROOM.seconds * context.sampleRate), buffer = context.createBuffer(2, length, context.sampleRate);
  let seed = 1;
  for (const channel of [0, 1]) {
    const echo = buffer.getChannelData(channel);
    let soft = 0, power = 0;
    for (let i = 0; i < length; i++) {
      seed = (seed * 16807) % 2147483647;
      soft += 0.35 * (seed / 1073741824 - 1 - soft); // walls take away the highest frequencies
      echo[i] = soft * (1 - i / length) ** 4 * Math.min(1, i / (0.012 * context.sampleRate));
      power += echo[i] ** 2;
    }
    for (let i = 0; i < length; i++) echo[i] *= Math.sqrt(ROOM.share / power);
  }
  return buffer;
}
