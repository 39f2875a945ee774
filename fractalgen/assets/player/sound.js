
// ---- sound: every note is struck a little ahead of time ----

const AHEAD = 1.2; // seconds: a page in the background is woken only once a second
const music = { context: null, out: null, at: 0, since: 0, next: 0, timer: 0 };
const heard = () => (music.out ? clamp(music.at + music.context.currentTime - music.since, 0, END) : music.at);

function instrument() {
  const context = (music.context = new AudioContext());
  const partials = [0, 1, 0.45, 0.28, 0.14, 0.1, 0.06, 0.035, 0.02, 0.012]; // roughly those of a soft piano tone
  music.wave = context.createPeriodicWave(new Float32Array(partials.length), Float32Array.from(partials));
  const room = context.createBuffer(2, context.sampleRate * 1.4, context.sampleRate);
  for (const side of [0, 1]) {
    const echo = room.getChannelData(side);
    for (let i = 0; i < echo.length; i++) echo[i] = (Math.random() * 2 - 1) * (1 - i / echo.length) ** 4;
  }
  const limiter = context.createDynamicsCompressor(), hall = context.createConvolver(), wet = context.createGain();
  hall.buffer = room;
  wet.gain.value = 0.22;
  music.desk = context.createGain();
  music.desk.gain.value = 0.5;
  music.desk.connect(limiter).connect(context.destination);
  music.desk.connect(hall).connect(wet).connect(limiter);
}

/** A struck string: a tone that dies away, slowly if it is low, and is damped when the key is let go. */
function strike({ pitch, velocity: loud }, start, end) {
  const { context, out, wave } = music;
  const frequency = 440 * 2 ** ((pitch - 69) / 12), dies = 1.4 * 2 ** ((60 - pitch) / 24);
  const filter = context.createBiquadFilter(), body = context.createGain(), damper = context.createGain();
  filter.frequency.setValueAtTime(Math.min(14000, frequency * (2 + 8 * loud)), start);
  filter.frequency.setTargetAtTime(Math.min(8000, frequency * 2), start, dies / 2);
  body.gain.setValueAtTime(0, start);
  body.gain.linearRampToValueAtTime(0.32 * loud ** 1.6, start + 0.005);
  body.gain.setTargetAtTime(0, start + 0.005, dies);
  damper.gain.setTargetAtTime(0, end, 0.07);
  filter.connect(body).connect(damper).connect(out);
  // A second string, slightly out of tune, gives it life; as strong as the first, the two would cancel out.
  for (const [detune, gain] of [[0, 1], [3, 0.25]]) {
    const tone = new OscillatorNode(context, { frequency, detune });
    tone.setPeriodicWave(wave);
    tone.connect(new GainNode(context, { gain })).connect(filter);
    tone.start(start);
    tone.stop(end + 0.6);
  }
}

function schedule() {
  const { context } = music, zero = music.since - music.at; // when the piece began, or would have
  if (heard() >= END) listen(false, 0);
  if (!music.out) return;
  for (; music.next < notes.length; music.next++) {
    const note = notes[music.next], start = zero + clock[note.start], end = zero + clock[note.end];
    if (start > context.currentTime + AHEAD) break;
    if (end > context.currentTime) strike(note, Math.max(start, context.currentTime), end); // also one begun before
  }
}

/** Play the music or pause it, from where it is or from the given second. */
function listen(on, from = heard()) {
  if (on && !music.context) instrument();
  clearInterval(music.timer);
  if (music.out) { // what is scheduled falls silent with its own output
    const { out, context } = music;
    out.gain.setTargetAtTime(0, context.currentTime, 0.03);
    setTimeout(() => out.disconnect(), 300);
    music.out = null;
  }
  music.at = clamp(from, 0, END);
  if (on) {
    if (music.at >= END) music.at = 0;
    music.context.resume();
    music.out = music.context.createGain();
    music.out.connect(music.desk);
    music.since = music.context.currentTime + 0.08;
    music.next = 0;
    music.timer = setInterval(schedule, 100);
    schedule();
  }
  refresh();
}
