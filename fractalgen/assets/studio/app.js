/** The studio: what is open, what is chosen, and what a person can do with it. */
import { Refused, Socket, get, post, request, upload } from "./api.js";
import { minutes } from "../player/notes.js";
import * as dialogs from "./dialogs.js";
import { say, toast } from "./dialogs.js";
import * as edit from "./document.js";
import { $, el, gather, press, setIcon } from "./dom.js";
import { Project } from "./history.js";
import * as i18n from "./i18n.js";
import { t } from "./i18n.js";
import { listen as listenToKeys } from "./keys.js";
import { Live } from "./live.js";
import { Keyboard } from "./midi.js";
import { Panel } from "./panel.js";
import { Player } from "./player.js";
import { Roll } from "./roll.js";
import { Strip } from "./strip.js";
import { Tools } from "./tools.js";

const GRIDS = [
  ["1/4", 480],
  ["1/8", 240],
  ["1/8 T", 160],
  ["1/16", 120],
  ["1/16 T", 80],
  ["1/32", 60],
];
const METERS = ["4/4", "3/4", "2/4", "6/8", "12/8", "6/4", "5/4", "3/2"];
const NARROW = [
  // what the transport has no room for stands with the settings
  ["(min-width: 40rem) and (max-width: 60rem) and (max-height: 32rem)", ".tempo"],
  ["(max-width: 60rem)", ".meter"],
  ["(max-width: 68rem)", ".volume"],
];
const CHORDS = ["", "m", "7", "maj7", "m7", "dim", "sus4", "6", "m7b5"];

class Studio {
  project = new Project();
  socket = new Socket();
  selection = new Set();
  region = null;
  loop = null;
  live = null; // what is being composed, or was last
  job = null; // its number while it runs
  marquee = null;
  byHand = false;
  following = true;
  lastVelocity = 84;
  lastLength = null;
  #draft = null;
  #preview = null; // a state that is only looked at
  #clipboard = null;

  t = t;

  async begin() {
    this.player = new Player(() => ({
      piece: this.shown,
      limit: this.composing ? this.live.limit : Infinity,
      loop: this.loop,
      end: this.keyboard.recording ? Infinity : this.shown.length,
    }));
    this.roll = new Roll(this, $("roll-box"));
    this.tools = new Tools(this, this.roll);
    this.strip = new Strip(this);
    this.keyboard = new Keyboard(this.player);
    this.setTheme(
      localStorage.getItem("fractalgen.theme") ??
        (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"),
    );
    i18n.translate();
    gather($("narrow"), $("facts"), NARROW);
    this.#connect();
    listenToKeys(this);
    this.info = await until(() => get("/info"));
    this.panel = new Panel(this.info, $("settings"), $("modes"), () => this.piece);
    this.panel.addEventListener("change", () => this.refresh());
    await this.#openFirst();
    document.body.dataset.ready = "true";
  }

  async #openFirst() {
    if (new URLSearchParams(location.search).has("token"))
      history.replaceState(null, "", location.pathname + location.hash);
    const wanted = decodeURIComponent(location.hash.slice(1));
    try {
      if (wanted) return await this.openProject(wanted);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      toast(error.message, "error");
    }
    const projects = await get("/projects");
    if (projects.length) await this.openProject(projects[0].id);
    else await this.newProject();
  }

  // ---- projects and files ----

  async openProject(id) {
    if (this.project.id) await Promise.race([this.project.saved(), new Promise((after) => setTimeout(after, 2000))]);
    this.player.pause();
    Object.assign(this, { live: null, job: null, region: null, loop: null });
    this.#preview = this.#draft = null;
    this.selection = new Set();
    await this.project.open(id);
    history.replaceState(null, "", `#${encodeURIComponent(this.project.id)}`);
    this.socket.connect(this.project.id);
    this.player.seek(0);
    this.refresh();
    this.roll.fit();
  }

  async newProject() {
    const day = new Intl.DateTimeFormat(i18n.current(), {
      month: "short",
      day: "numeric",
      hour: "2-digit",
      minute: "2-digit",
    });
    const { id } = await post("/projects", {
      name: t("projects.untitled", { day: day.format().replaceAll(":", ".") }),
    });
    await this.openProject(id);
  }

  async take(file) {
    if (!file) return;
    try {
      if (/\.fractalgen$/i.test(file.name)) return await this.openProject((await upload("/projects/open", file)).id);
      await this.project.saved();
      const { state, remarks } = await upload(`/projects/${this.project.id}/import`, file);
      await this.project.refresh();
      if (state?.id !== undefined && this.project.head !== state.id) await this.project.go(state.id);
      this.roll.fit();
      toast(t("imported", { name: file.name }));
      for (const line of remarks ?? []) toast(line);
    } catch (error) {
      this.complain(error);
    }
  }

  async download(kind, region = null) {
    let waiting = null;
    try {
      if (!this.piece.length && kind !== "project") throw new Error(t("nothing"));
      await this.project.saved();
      const { href, name } = dialogs.file(this.project, kind, region);
      if (!["mid", "project"].includes(kind)) waiting = toast(t("take.wait", { name }));
      const answer = await fetch(href);
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? answer.statusText);
      const link = el("a", { href: URL.createObjectURL(await answer.blob()), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      toast(t("taken", { name }));
    } catch (error) {
      this.complain(error);
    } finally {
      waiting?.remove();
    }
  }

  complain(error) {
    if (!(error instanceof Refused) && error instanceof TypeError) this.banner(true);
    else toast(error.message, "error");
  }

  // ---- what there is ----

  /** The piece of the head. */
  get piece() {
    return this.project.piece ?? edit.empty();
  }

  /** The piece that the roll shows: what is composed, what is looked at, a drag, or the piece. */
  get shown() {
    if (this.composing) return this.live.piece();
    return this.#draft ?? this.project.pieces.get(this.#preview) ?? this.piece;
  }

  get composing() {
    return this.job !== null && this.live?.job === this.job;
  }

  /** What was composed last, while the piece is still its result. */
  get moving() {
    const { live, project } = this;
    return this.composing ||
      live?.states?.includes(project.number(project.head)) ||
      live?.states?.includes(this.#preview)
      ? live
      : null;
  }

  get editable() {
    return !this.composing && this.#preview === null;
  }

  get cursor() {
    return this.player.tick;
  }
  get playing() {
    return this.player.playing;
  }
  get looping() {
    return this.player.looping;
  }
  get sounding() {
    return this.player.sounding;
  }
  get theme() {
    return document.documentElement.dataset.theme;
  }
  /** The part of the piece that alternatives are about. */
  get focus() {
    return this.region && { start: Math.max(0, this.region.start - 1920), end: this.region.end + 1920 };
  }

  // ---- edits ----

  draft(piece) {
    this.#draft = piece;
    this.roll.measure();
  }

  drop() {
    this.#draft = null;
    this.roll.invalidate();
  }

  /** What is drawn becomes an edit. */
  keep(kind, n) {
    const piece = this.#draft;
    this.#draft = null;
    if (piece) this.commit(kind, piece, { n });
  }

  commit(kind, piece, { merge = null, ...values } = {}) {
    if (!this.editable || piece === this.piece) return;
    this.project.commit(t(`did.${kind}`, values), piece, { merge });
    const ids = new Set(piece.notes.map(({ id }) => id));
    this.selection = this.selection.intersection(ids);
    this.refresh();
  }

  /** Says why nothing can be edited at the moment. */
  refuse() {
    toast(t(this.composing ? "strip.wait" : "strip.first"));
  }

  /** An edit of the selected notes, if there are any. */
  change(kind, how, { merge = null } = {}) {
    const { selection } = this;
    if (!selection.size || !this.editable) return false;
    this.commit(kind, how(this.piece, selection), { n: selection.size, merge: merge && `${merge} ${[...selection]}` });
    return true;
  }

  select(ids = new Set(), quiet = false) {
    this.selection = ids;
    if (!quiet) this.refresh();
    this.roll.invalidate();
  }

  selectAll() {
    this.select(new Set(this.piece.notes.map(({ id }) => id)));
  }

  /** Selects the notes of a hand. */
  pick(hand) {
    this.select(new Set(this.piece.notes.filter((note) => note.hand === hand).map(({ id }) => id)));
  }

  setRegion(region, done = false) {
    this.region = region;
    if (region) this.loop = { start: region.start, end: region.end };
    if (region && done) {
      this.panel?.setMode("region");
      this.select(new Set(edit.inside(this.shown, region).map(({ id }) => id)));
      say(
        t("region.says", {
          bars: edit.barRange(this.piece, region),
          low: edit.pitchName(region.low),
          high: edit.pitchName(region.high - 1),
        }),
      );
    }
    if (!region && this.panel?.mode === "region") this.panel.setMode("new");
    this.refresh();
  }

  nudge(later, higher) {
    return this.change("move", (piece, ids) => edit.move(piece, ids, later, higher), { merge: "move" });
  }

  remove(ids = this.selection) {
    if (ids.size) this.commit("delete", edit.remove(this.piece, ids), { n: ids.size });
  }

  copy(cut = false) {
    const notes = this.piece.notes.filter(({ id }) => this.selection.has(id));
    if (!notes.length) return;
    this.#clipboard = { notes, from: Math.floor(notes[0].start / this.tools.grid) * this.tools.grid };
    if (cut) this.remove();
    else say(t("did.copy", { n: notes.length }));
  }

  paste(at = this.tools.snap(this.cursor)) {
    if (this.#clipboard) this.#place(this.#clipboard, at, "paste");
  }

  duplicate() {
    const notes = this.piece.notes.filter(({ id }) => this.selection.has(id));
    if (!notes.length) return;
    const from = this.region?.start ?? edit.barStart(this.piece, notes[0].start);
    const end =
      this.region?.end ?? edit.barEnd(this.piece, Math.max(...notes.map(({ start, duration }) => start + duration)));
    this.#place({ notes, from }, end, "duplicate");
    if (this.region) this.setRegion({ ...this.region, start: end, end: 2 * end - from });
  }

  #place({ notes, from }, at, kind) {
    const { piece, ids } = edit.add(
      this.piece,
      notes.map((note) => ({ ...note, locked: 0, start: note.start - from + at })),
    );
    this.commit(kind, piece, { n: ids.size });
    this.select(ids);
    this.roll.reveal(at);
  }

  quantise() {
    this.change("quantise", (piece, ids) => edit.quantise(piece, ids, this.tools.grid));
  }

  toggleLock() {
    const on = this.piece.notes.some(({ id, locked }) => this.selection.has(id) && !locked);
    this.change(on ? "lock" : "unlock", (piece, ids) => edit.setLock(piece, ids, on));
  }

  insertBars(count) {
    const at = edit.barStart(this.piece, this.cursor),
      { ticks } = edit.bars(this.piece)[edit.barAt(this.piece, at)];
    this.commit("insert", edit.insertTime(this.piece, at, count * ticks), { n: count });
    this.setRegion({ start: at, end: at + count * ticks, low: 0, high: 128 }, true);
  }

  addNote() {
    const { piece, ids } = edit.add(this.piece, [
      {
        pitch: this.lastPitch ?? 60,
        start: this.tools.snap(this.cursor, false, Math.floor),
        duration: this.lastLength ?? this.tools.grid * 2,
        velocity: this.lastVelocity,
      },
    ]);
    this.commit("add", piece, { n: 1 });
    this.select(ids);
    this.tell();
  }

  /** The next or the last note becomes the chosen one. */
  step(by) {
    const { notes } = this.piece,
      chosen = notes.findIndex(({ id }) => this.selection.has(id));
    const near = notes.findIndex(({ start }) => start >= this.cursor);
    const note = notes[chosen < 0 ? Math.max(0, near) : edit.clamp(chosen + by, 0, notes.length - 1)];
    if (!note) return;
    this.select(new Set([note.id]));
    this.roll.reveal(note.start, note.pitch);
    this.touch(note.pitch, note.velocity);
    this.tell();
  }

  /** Says what is chosen to those who do not see it. */
  tell() {
    const [note] = this.piece.notes.filter(({ id }) => this.selection.has(id));
    if (!note) return;
    this.lastPitch = note.pitch;
    say(this.describe(note));
  }

  describe(note) {
    const { bar, beat, step } = edit.place(this.piece, note.start),
      steps = +(note.duration / edit.GRID).toFixed(2);
    return t("note.says", {
      name: edit.pitchName(note.pitch, this.piece.key),
      bar,
      beat,
      step,
      steps,
      velocity: note.velocity,
      more: `${note.hand >= 0 ? t(`note.hand${note.hand}`) : ""}${note.locked ? t("note.locked") : ""}`,
    });
  }

  editLane(lane, tick) {
    if (!this.editable) return;
    const form = $("lane-editor"),
      input = $("lane-text"),
      before = this.piece[lane].find(([at]) => at === tick)?.[1] ?? "";
    const names =
      lane === "chords"
        ? [..."CDEFGAB"].flatMap((root) => CHORDS.map((kind) => root + kind)).concat("N.C.")
        : [..."ABCD"];
    $("lane-names").replaceChildren(...names.map((name) => el("option", { value: name })));
    i18n.label(input, t(`lane.${lane}.edit`));
    input.value = before;
    form.hidden = false;
    form.style.left = `${Math.min(this.roll.x(tick), this.roll.width - 150)}px`;
    form.style.top = lane === "chords" ? "44px" : "22px";
    const done = (keep) => {
      if (form.hidden) return;
      form.hidden = true;
      $("roll-box").focus({ preventScroll: true });
      const text = input.value.trim();
      if (keep && text !== before) this.commit(lane, edit.setLane(this.piece, lane, tick, text), { name: text || "–" });
    };
    form.onsubmit = (event) => (event.preventDefault(), done(true));
    input.onblur = () => done(true);
    input.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Escape") done(false);
      if (event.key !== "Tab") return;
      event.preventDefault();
      done(true);
      const at = edit.bars(this.piece).find((bar) => bar.tick > tick).tick;
      this.roll.reveal(at);
      this.editLane(lane, at);
    };
    input.focus();
    input.select();
  }

  openMenu(x = 220, y = 60) {
    const some = this.selection.size > 0,
      { left, top } = this.roll.canvas.getBoundingClientRect();
    const move = (pitch) => () => this.nudge(0, pitch);
    dialogs.openMenu(
      [
        ["edit.copy", () => this.copy(), "ctrl+C", some],
        ["edit.cut", () => this.copy(true), "ctrl+X", some],
        ["edit.paste", () => this.paste(), "ctrl+V", Boolean(this.#clipboard)],
        ["edit.duplicate", () => this.duplicate(), "ctrl+D", some],
        ["edit.delete", () => this.remove(), "del", some],
        null,
        ["edit.up", move(12), "shift+↑", some],
        ["edit.down", move(-12), "shift+↓", some],
        ["edit.quantise", () => this.quantise(), "Q", some],
        ["edit.lock", () => this.toggleLock(), "K", some],
        ["edit.right", () => this.change("hand", (piece, ids) => edit.setHand(piece, ids, 0)), "", some],
        ["edit.left", () => this.change("hand", (piece, ids) => edit.setHand(piece, ids, 1)), "", some],
        null,
        ["edit.pick.right", () => this.pick(0), ""],
        ["edit.pick.left", () => this.pick(1), ""],
        ["edit.insert", () => this.insertBars(4), ""],
        ["edit.trim", () => this.trim(), "", this.piece.length > 0],
        ["edit.all", () => this.selectAll(), "ctrl+A"],
        ["midi", () => this.connectKeyboard(), "", Keyboard.possible],
        ["help", dialogs.showHelp, "?"],
      ],
      left + x,
      top + y,
    );
  }

  /** Ends the piece where the region ends, or after its last note. */
  trim() {
    const last = Math.max(0, ...this.piece.notes.map(({ start, duration }) => start + duration));
    const end = this.region?.end ?? edit.barEnd(this.piece, last);
    const kept = { ...this.piece, notes: this.piece.notes.filter(({ start, duration }) => start + duration <= end) };
    this.commit("trim", edit.setLength(kept, end));
  }

  async go(id) {
    this.show(null);
    await this.project.go(id).catch((error) => this.complain(error));
  }

  async undo(by) {
    if (this.composing) return;
    this.show(null);
    const left = await (by < 0 ? this.project.undo() : this.project.redo()).catch((error) => this.complain(error));
    if (by < 0 && left) say(t("undone", { label: i18n.stateName(left.label) }));
  }

  // ---- composing ----

  async compose({ mode = this.panel.mode, ...changes } = {}) {
    if (this.job !== null) return this.stop();
    this.drop();
    this.show(null);
    this.panel.setMode(mode);
    if (mode === "region" && !this.region) return toast(t("region.none"));
    if (mode !== "new" && !this.piece.notes.length && !(mode === "region")) return toast(t("nothing"));
    if (mode === "new") this.setRegion(null);
    else if (this.region && mode !== "continue" && this.region.end > this.piece.length) this.#lengthen(this.region.end);
    this.job = ""; // asked for, but without a number yet
    this.stopping = false;
    this.refresh();
    try {
      await this.project.saved();
      const body = { ...this.panel.request(this.region), ...changes, state: this.project.number(this.project.head) };
      if (mode === "continue") body.flags.bars = this.panel.adds;
      const { job } = await post(`/projects/${this.project.id}/compose`, body);
      if (this.job === "") this.job = job;
      if (this.stopping) await this.stop();
    } catch (error) {
      this.job = null;
      this.complain(error);
    }
    this.refresh();
  }

  /** A region behind the end makes the piece longer. */
  #lengthen(tick) {
    const longer = edit.setLength(this.piece, edit.barEnd(this.piece, tick));
    this.commit("lengthen", longer, { n: edit.barCount(longer) });
  }

  async stop() {
    this.stopping = this.job === "";
    if (this.job)
      await request("DELETE", `/jobs/${this.job}`).catch((error) => error.status !== 404 && this.complain(error)); // it had ended
  }

  /** A message of the server. */
  hear(message) {
    const now = performance.now(),
      { live, project } = this;
    const handlers = {
      queued: () => Object.assign(this, { job: this.job || message.job, position: message.position }),
      started: () => {
        this.job = message.job;
        this.live = new Live(message, this.piece);
        this.select();
        if (message.mode === "new") this.player.seek(0);
        this.roll.measure();
        if (message.mode === "new") this.roll.fit();
        say(t("composing"));
      },
      plan: () => live?.job === message.job && live.plan(message),
      patch: () => {
        if (live?.job !== message.job) return;
        live.patch(message, now);
        if (message.sample === live.shownSample && this.following && !this.playing && live.generators[0] === "ar")
          this.roll.reveal(message.tick);
        if (live.num_samples > 1) this.strip.paint();
      },
      done: () => this.#done(message),
      error: () => {
        this.job = null;
        toast(message.message, "error");
      },
      state: () => this.job === null && project.told(message).catch((error) => this.complain(error)),
    };
    handlers[message.type]?.(message);
    this.refresh();
  }

  async #done({ states, stopped, seconds }) {
    try {
      await this.project.refresh();
      await Promise.all(states.map((id) => this.project.load(id)));
    } catch (error) {
      this.complain(error);
    }
    if (this.live) this.live.states = states;
    this.job = null;
    const n = states.length ? (this.project.pieces.get(states[0])?.notes.length ?? 0) : 0;
    if (states.length > 1) await this.show(states[0]);
    say(
      states.length > 1
        ? t("strip.choose", { n: states.length })
        : t(stopped ? "stopped" : "composed", { seconds: seconds?.toFixed(1) ?? "?", n }),
    );
    this.roll.measure();
    if (this.live?.mode === "new") this.roll.fit();
    this.refresh();
  }

  replay() {
    this.moving?.replay(performance.now());
    this.roll.invalidate();
  }

  // ---- alternatives ----

  async show(id) {
    if (id !== null) await this.project.load(id);
    this.#preview = this.strip.shown = id;
    this.select();
  }

  showSample(sample) {
    Object.assign(this.live, {
      shownSample: sample,
      frontier: Math.max(0, ...this.live.samples[sample].patches.map(({ tick }) => tick)),
    });
    this.refresh();
  }

  async audition(id) {
    await this.show(id);
    this.player.play(this.region ? edit.barStart(this.piece, this.region.start) : 0);
  }

  async accept(id) {
    await this.go(id);
    toast(t("strip.accepted"));
  }

  // ---- listening ----

  touch(pitch, velocity = this.lastVelocity) {
    if (!this.playing) this.player.touch(pitch, velocity);
    this.lastPitch = pitch;
  }

  seek(tick) {
    this.player.seek(edit.clamp(tick, 0, Math.max(this.shown.length, this.cursor)));
    this.refresh();
  }

  toggle() {
    if (this.playing) this.player.pause();
    else this.player.play();
  }

  bar(by) {
    const { shown, cursor } = this,
      at = edit.barAt(shown, by < 0 ? Math.max(0, cursor - (this.playing ? 240 : 1)) : cursor);
    this.seek(edit.bars(shown)[Math.max(0, at + (by > 0 ? 1 : 0))].tick);
    this.roll.reveal(this.cursor);
  }

  toggleLoop() {
    this.loop ??= { start: 0, end: this.piece.length || 7680 };
    this.player.looping = !this.player.looping;
    this.refresh();
  }

  async connectKeyboard() {
    try {
      await this.keyboard.connect();
      await this.player.wake();
      toast(
        this.keyboard.devices.length
          ? t("midi.found", { name: this.keyboard.devices.map(({ name }) => name).join(", ") })
          : t("midi.none"),
      );
    } catch (error) {
      toast(error.message, "error");
    }
  }

  async record() {
    if (this.keyboard.recording) {
      this.keyboard.stop();
      return this.player.pause();
    }
    if (Keyboard.possible) await this.connectKeyboard();
    this.keyboard.start();
    this.recordingOpen = true;
    await this.player.play();
  }

  // ---- the page ----

  setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    this.roll.restyle();
    this.strip.paint();
  }

  toggleTheme() {
    this.setTheme(this.theme === "dark" ? "light" : "dark");
    localStorage.setItem("fractalgen.theme", this.theme);
  }

  toggleHistory() {
    $("history-panel").hidden = !$("history-panel").hidden;
    this.refresh();
  }

  togglePanel(open = !document.body.classList.contains("panel-open")) {
    document.body.classList.toggle("panel-open", open);
    $("settings-button").setAttribute("aria-expanded", open);
  }

  hovered(note) {
    if (note === this.under) return;
    this.under = note;
    $("says").textContent = note ? this.describe(note) : this.#summary();
  }

  banner(lost) {
    const { length } = this.project.queue;
    $("banner").hidden = !lost;
    if (lost) $("banner").textContent = t(length ? "lost.kept" : "lost", { n: length });
  }

  #summary() {
    const { size } = this.selection;
    if (size) return t("selected", { n: size });
    return this.region ? t("region.is", { bars: edit.barRange(this.shown, this.region) }) : "";
  }

  #composeLabel() {
    const { panel, region, piece } = this,
      mode = this.job !== null ? "stop" : panel.mode;
    const bars = mode === "continue" ? panel.adds : panel.bars;
    if (mode === "region" || ((mode === "vary" || mode === "accompany") && region))
      return region ? t(`go.${mode}.bars`, { bars: edit.barRange(piece, region) }) : t("go.region");
    return t(`go.${mode}`, { n: bars });
  }

  /** Controls say what the state is; many changes at once are one refresh. */
  refresh() {
    this.refreshing ??= requestAnimationFrame(() => {
      this.refreshing = null;
      this.#refresh();
    });
  }

  #refresh() {
    const { project, player, job, live } = this;
    if (!project.id || !this.panel) return;
    $("undo").disabled = !project.canUndo || this.composing;
    $("redo").disabled = !project.canRedo || this.composing;
    if (document.activeElement !== $("name")) $("name").value = project.name;
    document.title = `${project.name} – FractalGen`;
    const busy = job !== null;
    document.body.classList.toggle("composing", busy);
    $("compose").querySelector("span").textContent = this.#composeLabel();
    setIcon($("compose"), busy ? "stop" : "spark");
    $("progress").hidden = !busy;
    $("progress-text").textContent = this.composing
      ? live.total
        ? t("progress", live)
        : t("planning")
      : this.position
        ? t("queued", { n: this.position })
        : t("waiting");
    if (this.composing && live.total) $("progress-bar").value = live.done / live.total;
    else $("progress-bar").removeAttribute("value");
    $("welcome").hidden =
      busy ||
      this.shown.notes.length > 0 ||
      this.#draft !== null ||
      this.recordingOpen ||
      this.drawing ||
      this.shown.chords.length > 0;
    $("says").textContent = this.under ? this.describe(this.under) : this.#summary();
    for (const id of ["quantise", "lock"]) $(id).disabled = !this.selection.size;
    for (const button of $("tool-kinds").children) {
      button.setAttribute("aria-checked", button.dataset.tool === this.tools.kind);
      button.tabIndex = button.dataset.tool === this.tools.kind ? 0 : -1;
    }
    $("watch").hidden = busy || !this.moving;
    press($("hands"), this.byHand);
    press($("loop"), player.looping);
    press($("click"), player.metronome);
    press($("pedal"), player.sustain);
    press($("follow"), this.following);
    press($("record"), this.keyboard.recording);
    setIcon($("play"), this.playing ? "pause" : "play");
    i18n.label($("play"), t(this.playing ? "pause" : "play"));
    if (document.activeElement !== $("tempo"))
      $("tempo").value = Math.round(edit.tempoAt(this.shown, this.cursor) * 10) / 10;
    this.#meter();
    $("facts").textContent = this.shown.notes.length
      ? [
          t("bars.count", { n: edit.barCount(this.shown) }),
          t("notes.count", { n: this.shown.notes.length }),
          i18n.keyName(this.shown.key),
        ]
          .filter(Boolean)
          .join(" · ")
      : "";
    $("roll-box").setAttribute(
      "aria-label",
      t("roll.says", { n: this.shown.notes.length, bars: edit.barCount(this.shown) }),
    );
    this.#status();
    this.#clock();
    this.#floatRegion();
    this.panel.refresh();
    this.strip.update();
    dialogs.showHistory(this);
    this.roll.measure();
  }

  #meter() {
    const { beats, unit } = edit.bars(this.shown)[edit.barAt(this.shown, this.cursor)],
      now = `${beats}/${unit}`;
    const select = $("meter"),
      options = METERS.includes(now) ? METERS : [now, ...METERS];
    if (select.options.length !== options.length) select.replaceChildren(...options.map((meter) => new Option(meter)));
    select.value = now;
  }

  #status() {
    const { queue, online } = this.project;
    $("saved").textContent = online ? t(queue.length ? "saving" : "saved") : t("offline");
    $("saved").dataset.state = online ? (queue.length ? "saving" : "saved") : "offline";
    this.banner(!online || this.lost);
  }

  #clock() {
    const { shown, cursor } = this,
      { bar, beat, step } = edit.place(shown, cursor);
    $("place").textContent = `${bar} . ${beat} . ${step}`;
    $("time").textContent = `${minutes(edit.seconds(shown, cursor))} / ${minutes(edit.seconds(shown, shown.length))}`;
  }

  #floatRegion() {
    const bar = $("region-bar"),
      { region, roll } = this;
    bar.hidden = !region || this.job !== null || this.strip.shown !== null;
    if (bar.hidden) return;
    $("region-vary").hidden = $("region-drag").hidden = roll.width < 520;
    const { width, height } = bar.getBoundingClientRect(),
      middle = (roll.x(region.start) + roll.x(region.end)) / 2;
    const above = roll.y(region.high - 1) - height - 10,
      below = roll.y(region.low) + roll.row + 10;
    const y = above > 76 ? above : below < roll.bottom - height - 8 ? below : 82;
    bar.style.left = `${edit.clamp(middle - width / 2, 62, Math.max(62, roll.width - width - 10))}px`;
    bar.style.top = `${y}px`;
    $("region-drag").href = dialogs.file(this.project, "mid", region).href;
  }

  #frame() {
    this.#clock();
    if (this.following && this.playing) this.roll.reveal(this.cursor);
    this.roll.invalidate();
  }

  #connect() {
    const { project, socket, player, keyboard } = this;
    const click = (id, action) => $(id).addEventListener("click", () => action());
    const flip = (object, name) => () => {
      object[name] = !object[name];
      this.refresh();
    };
    project.addEventListener("change", () => this.refresh());
    project.addEventListener("status", () => this.refresh());
    project.addEventListener("refused", ({ detail }) => {
      toast(detail, "error");
    });
    socket.addEventListener("message", ({ detail }) => this.hear(detail));
    socket.addEventListener("lost", () => {
      this.lost = true;
      this.refresh();
    });
    socket.addEventListener("open", () => this.#back());
    player.addEventListener("frame", () => this.#frame());
    player.addEventListener("state", () => this.refresh());
    player.addEventListener("silent", () => toast(t("silent")));
    keyboard.addEventListener("change", () => this.refresh());
    keyboard.addEventListener("recorded", ({ detail }) => {
      const { piece, ids } = edit.add(this.piece, detail);
      this.commit("record", piece, { n: ids.size });
    });
    for (const [id, action] of Object.entries({
      undo: () => this.undo(-1),
      redo: () => this.undo(1),
      history: () => this.toggleHistory(),
      help: dialogs.showHelp,
      theme: () => this.toggleTheme(),
      projects: () => dialogs.showProjects(this),
      play: () => this.toggle(),
      start: () => {
        this.seek(0);
        this.roll.reveal(0);
      },
      record: () => this.record(),
      loop: () => this.toggleLoop(),
      click: flip(player, "metronome"),
      pedal: flip(player, "sustain"),
      follow: flip(this, "following"),
      hands: flip(this, "byHand"),
      in: () => this.roll.zoom(1.4),
      out: () => this.roll.zoom(1 / 1.4),
      fit: () => this.roll.fit(),
      watch: () => this.replay(),
      quantise: () => this.quantise(),
      lock: () => this.toggleLock(),
      compose: () => {
        this.togglePanel(false);
        this.compose();
      },
      "settings-button": () => this.togglePanel(),
      "welcome-compose": () => this.compose({ mode: "new" }),
      "welcome-file": () => $("file").click(),
      "welcome-draw": () => {
        this.drawing = true;
        this.setTool("draw");
      },
      "new-project": () => {
        $("projects-dialog").close();
        this.newProject();
      },
      "open-file": () => {
        $("projects-dialog").close();
        $("file").click();
      },
      "region-compose": () => this.compose({ mode: "region" }),
      "region-three": () => this.compose({ mode: "region", num_samples: 3 }),
      "region-vary": () => this.compose({ mode: "vary" }),
      "region-lock": () => this.toggleLock(),
      "region-loop": () => {
        this.toggleLoop();
        if (player.looping) player.play(this.loop.start);
      },
      "region-close": () => {
        this.setRegion(null);
        this.select();
      },
      language: () => {
        i18n.toggle();
        this.panel.build();
        this.#fillSelects();
        this.refresh();
      },
    }))
      click(id, action);
    $("more").addEventListener("click", () => {
      const box = $("more").getBoundingClientRect(),
        { left, top } = this.roll.canvas.getBoundingClientRect();
      this.openMenu(box.left - left, box.bottom - top + 4);
    });
    for (const id of ["edit-menu", "take-menu"]) $(id).addEventListener("keydown", dialogs.menuKeys);
    $("take-menu").addEventListener(
      "beforetoggle",
      ({ newState }) => newState === "open" && dialogs.fillTakeMenu(this),
    );
    $("take-menu").addEventListener("toggle", () => {
      const box = $("take").getBoundingClientRect(),
        menu = $("take-menu");
      menu.style.top = `${box.bottom + 6}px`;
      menu.style.left = `${Math.max(8, box.right - menu.offsetWidth)}px`;
    });
    $("tool-kinds").addEventListener("click", ({ target }) => this.setTool(target.closest("button")?.dataset.tool));
    $("tool-kinds").addEventListener("keydown", (event) => {
      const kinds = ["select", "draw", "erase"],
        by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.stopPropagation();
      this.setTool(kinds[(kinds.indexOf(this.tools.kind) + by + 3) % 3]);
      $("tool-kinds").querySelector(`[data-tool=${this.tools.kind}]`).focus();
    });
    $("grid").addEventListener("change", ({ target }) => (this.tools.grid = +target.value));
    $("samples").addEventListener("change", ({ target }) => this.panel.set("samples", target.value));
    $("tempo").addEventListener("change", ({ target }) => {
      const bpm = edit.clamp(+target.value || 120, 20, 400);
      this.commit("tempo", edit.setTempo(this.piece, this.cursor, bpm), { bpm });
    });
    $("meter").addEventListener("change", ({ target }) =>
      this.commit("meter", edit.setMeter(this.piece, this.cursor, ...target.value.split("/").map(Number)), {
        meter: target.value,
      }),
    );
    $("volume").addEventListener("input", ({ target }) => player.setVolume(+target.value));
    $("name").addEventListener("change", ({ target }) =>
      project
        .rename(target.value.trim() || project.name)
        .catch((error) => this.complain(error))
        .finally(() => this.refresh()),
    );
    for (const id of ["name", "tempo"])
      $(id).addEventListener("keydown", ({ key }) => /Enter|Escape/.test(key) && $(id).blur());
    $("file").addEventListener("change", async ({ target }) => {
      await this.take(target.files[0]);
      target.value = "";
    });
    dialogs.draggable(
      $("region-drag"),
      () => dialogs.file(project, "mid", this.region),
      () => project.saved(),
    );
    $("region-drag").addEventListener("click", (event) => {
      event.preventDefault();
      this.download("mid", this.region);
    });
    this.roll.scroller.addEventListener("scroll", () => {
      this.#floatRegion();
      $("lane-editor").hidden = true;
    });
    for (const dialog of document.querySelectorAll("dialog"))
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    matchMedia("(prefers-color-scheme: light)").addEventListener(
      "change",
      ({ matches }) => localStorage.getItem("fractalgen.theme") ?? this.setTheme(matches ? "light" : "dark"),
    );
    window.addEventListener("hashchange", () => {
      const id = decodeURIComponent(location.hash.slice(1));
      if (id && id !== project.id) this.openProject(id).catch((error) => this.complain(error));
    });
    window.addEventListener(
      "beforeunload",
      (event) => project.queue.length && project.online && event.preventDefault(),
    );
    document.addEventListener("pointerdown", () => player.wake(), { once: true });
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address names the project
      $("roll-box").focus();
    });
    this.#drops();
    this.#fillSelects();
  }

  #fillSelects() {
    $("grid").replaceChildren(
      ...GRIDS.map(([name, ticks]) => new Option(name, ticks, false, ticks === this.tools.grid)),
    );
    const chosen = Number(this.panel?.values.samples ?? 1);
    $("samples").replaceChildren(...[1, 2, 3, 4].map((n) => new Option(t("samples.n", { n }), n, false, n === chosen)));
    i18n.translate();
  }

  setTool(kind) {
    if (!kind) return;
    this.tools.kind = kind;
    this.refresh();
  }

  /** Files that are dropped anywhere on the page. */
  #drops() {
    let inside = 0;
    const files = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
    document.addEventListener("dragenter", (event) => files(event) && ($("drop").hidden = !++inside));
    document.addEventListener("dragleave", (event) => files(event) && ($("drop").hidden = !--inside));
    document.addEventListener("dragover", (event) => files(event) && event.preventDefault());
    document.addEventListener("drop", async (event) => {
      if (!files(event)) return;
      event.preventDefault();
      inside = 0;
      $("drop").hidden = true;
      for (const file of event.dataTransfer.files) await this.take(file);
    });
  }

  /** The server is there (again). */
  #back() {
    const lost = this.lost;
    this.lost = false;
    if (lost) {
      this.job = null; // what is still composed is told again
      this.project.back();
      this.project.refresh().catch((error) => this.complain(error));
    }
    this.refresh();
  }
}

/** Tries until there is an answer. */
async function until(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof Refused) toast(error.message, "error");
      await new Promise((after) => setTimeout(after, 1000));
    }
  }
}

const studio = new Studio();
window.studio = studio; // for scripts and tests
await studio.begin();
