/** The studio: what is open, what is chosen, and how the piece changes.  The other parts of the page work on it. */
import { Socket } from "./api.js";
import { Composer } from "./composer.js";
import { listProjects, say, toast } from "./dialogs.js";
import * as edit from "./document.js";
import { $ } from "./dom.js";
import { Editor } from "./editor.js";
import { Project } from "./history.js";
import { stateName, t } from "./i18n.js";
import { Keyboard } from "./midi.js";
import { Player } from "./player.js";
import { Roll } from "./roll.js";
import { Strip } from "./strip.js";
import { Tools } from "./tools.js";
import { Transport } from "./transport.js";
import { View } from "./view.js";

export class Studio {
  project = new Project();
  socket = new Socket();
  selection = new Set();
  region = null;
  loop = null;
  live = null; // what is being composed, or was last
  job = null; // its number while it runs; "" while it is asked for
  marquee = null;
  byHand = false;
  following = true;
  welcomed = false; // a person has begun to draw or to record
  lastVelocity = 84;
  lastLength = null;
  #draft = null;

  constructor() {
    this.player = new Player(() => ({
      piece: this.shown,
      limit: this.composing ? this.live.limit : Infinity,
      loop: this.loop,
      end: this.keyboard.recording ? Infinity : this.shown.length,
    }));
    this.keyboard = new Keyboard(this.player);
    this.roll = new Roll(this, $("roll-box"));
    this.tools = new Tools(this, this.roll);
    this.strip = new Strip(this);
    this.editor = new Editor(this);
    this.composer = new Composer(this);
    this.transport = new Transport(this);
    this.view = new View(this);
  }

  async openProject(id) {
    if (this.project.id) await Promise.race([this.project.saved(), new Promise((after) => setTimeout(after, 2000))]);
    this.player.pause();
    Object.assign(this, { live: null, job: null, region: null, loop: null, selection: new Set() });
    this.#draft = this.strip.shown = null;
    this.panel.forget("hand"); // it is about the notes of one piece
    await this.project.open(id);
    const region = JSON.parse(sessionStorage.getItem(`fractalgen.region.${id}`));
    if (region) this.setRegion(region, true); // as before the page was loaded anew
    history.replaceState(null, "", `#${encodeURIComponent(this.project.id)}`);
    this.socket.connect(this.project.id);
    this.player.seek(0);
    this.refresh();
    this.roll.fit();
  }

  // ---- what there is ----

  /** The piece of the head. */
  get piece() {
    return this.project.piece ?? edit.empty();
  }

  /** The piece that the roll shows: what is composed, a drag, what is looked at, or the piece. */
  get shown() {
    if (this.composing) return this.live.piece();
    return this.#draft ?? this.project.pieces.get(this.strip.shown) ?? this.piece;
  }

  get composing() {
    return this.job !== null && this.live?.job === this.job;
  }

  /** What was composed last, while the piece is still its result. */
  get moving() {
    const { live, project } = this;
    const states = [project.number(project.head), this.strip.shown];
    return this.composing || states.some((id) => live?.states?.includes(id)) ? live : null;
  }

  get editable() {
    return !this.composing && this.strip.shown === null;
  }
  get drafting() {
    return this.#draft !== null;
  }
  get cursor() {
    return this.player.tick;
  }
  get playing() {
    return this.player.playing;
  }
  get sounding() {
    return this.player.sounding;
  }
  get theme() {
    return document.documentElement.dataset.theme;
  }
  /** The notes that are selected. */
  get chosen() {
    return this.piece.notes.filter(({ id }) => this.selection.has(id));
  }
  /** The part of the piece that alternatives are about. */
  get focus() {
    return this.region && { start: Math.max(0, this.region.start - 1920), end: this.region.end + 1920 };
  }

  // ---- changes ----

  draft(piece) {
    this.#draft = piece;
    this.roll.measure();
  }

  drop() {
    if (this.#draft) this.selection = this.selection.intersection(edit.idsOf(this.piece.notes));
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
    if (piece === this.piece) return;
    this.tools.cancel();
    if (!this.editable) {
      this.refuse();
      this.refresh(); // fields show what is
      return;
    }
    this.project.commit(t(`did.${kind}`, values), piece, { merge });
    this.selection = this.selection.intersection(edit.idsOf(piece.notes));
    this.refresh();
  }

  /** Another page or a script has made, renamed or removed a project. */
  listed({ project: id, name }) {
    if (id === this.project.id && name === null) this.project.lose();
    else if (id === this.project.id) this.project.name = name;
    if ($("projects-dialog").open) listProjects(this);
  }

  /** The piece of a project that was removed goes on in a new one. */
  rescue() {
    const opened = this.project.rescue(t("did.rescue")).then((id) => this.openProject(id));
    return opened.catch(this.complain);
  }

  /** Says why nothing can be edited at the moment. */
  refuse() {
    toast(t(this.composing ? "strip.wait" : "strip.first"));
  }

  async go(id) {
    this.tools.cancel();
    this.strip.show(null);
    await this.project.go(id).catch(this.complain);
  }

  async undo() {
    const left = await this.#step(() => this.project.undo());
    if (left) say(t("undone", { label: stateName(left.label) }));
  }

  async redo() {
    await this.#step(() => this.project.redo());
  }

  async #step(move) {
    if (this.tools.cancel() || this.composing) return null; // a drag is all that is taken back
    this.strip.show(null);
    return move().catch(this.complain);
  }

  // ---- what is chosen ----

  select(ids = new Set(), quiet = false) {
    this.selection = ids;
    if (!quiet) this.refresh();
    this.roll.invalidate();
  }

  setRegion(region, done = false) {
    this.region = region;
    sessionStorage.setItem(`fractalgen.region.${this.project.id}`, JSON.stringify(region));
    if (region) this.loop = { start: region.start, end: region.end };
    if (region && done) {
      this.panel?.setMode("region");
      this.select(edit.idsOf(edit.inside(this.shown, region)));
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

  // ---- the page ----

  /** Tells an error; that of a server that does not answer by the banner. */
  complain = (error) => {
    if (error instanceof TypeError) this.view.banner(true);
    else toast(error.message, "error");
  };

  flip(object, name) {
    object[name] = !object[name];
    this.refresh();
  }

  /** Controls say what the state is; many changes at once are one refresh. */
  refresh() {
    this.refreshing ??= requestAnimationFrame(() => {
      this.refreshing = null;
      if (this.project.id && this.panel) this.view.update();
    });
  }
}
