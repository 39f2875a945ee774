/** Composing: what is asked of the server, and what it tells while it composes. */
import { post, request } from "./api.js";
import { say, toast } from "./dialogs.js";
import * as edit from "./document.js";
import { t } from "./i18n.js";
import { Live } from "./live.js";

export class Composer {
  position = 0; // in the queue of the server
  #stopping = false;
  #giveUp = null; // ends the wait for what is not saved yet

  constructor(studio) {
    this.studio = studio;
  }

  /** Composes in a mode (that of the panel), with `changes` of the request; stops what is being composed. */
  async compose({ mode = this.studio.panel.mode, ...changes } = {}) {
    const { studio } = this;
    if (studio.job !== null) return this.stop();
    studio.tools.cancel();
    studio.strip.show(null);
    studio.panel.setMode(mode);
    if (mode === "region" && !studio.region) return toast(t("region.none"));
    if (!["new", "region"].includes(mode) && !studio.piece.notes.length) return toast(t("nothing"));
    if (mode === "new") studio.setRegion(null);
    else if (mode !== "continue") this.#lengthen();
    studio.job = ""; // asked for, but without a number yet
    this.#stopping = false;
    studio.refresh();
    try {
      await this.#ask(mode, changes);
    } catch (error) {
      studio.job = null;
      studio.complain(error);
    }
    studio.refresh();
  }

  async #ask(mode, changes) {
    const { studio } = this,
      { project, panel } = studio,
      { id } = project;
    await Promise.race([project.saved(), new Promise((after) => (this.#giveUp = after))]);
    if (this.#stopping) studio.job = null;
    if (this.#stopping || project.id !== id) return;
    const body = { ...panel.request(studio.region), ...changes, state: project.number(project.head) };
    if (mode === "continue") body.flags.bars = panel.adds;
    const { job } = await post(`/projects/${project.id}/compose`, body);
    if (studio.job === "") studio.job = job;
    if (this.#stopping) await this.stop();
  }

  /** A region behind the end makes the piece longer. */
  #lengthen() {
    const { studio } = this,
      { piece, region } = studio;
    if (!region || region.end <= piece.length) return;
    const longer = edit.setLength(piece, edit.barEnd(piece, region.end));
    studio.commit("lengthen", longer, { n: edit.barCount(longer) });
  }

  async stop() {
    const { studio } = this;
    this.#stopping = studio.job === "";
    if (this.#stopping) this.#giveUp();
    if (studio.job)
      await request("DELETE", `/jobs/${studio.job}`).catch((error) => error.status !== 404 && studio.complain(error)); // it had ended
  }

  /** A message of the server. */
  hear(message) {
    const { studio } = this,
      { live, project } = studio;
    const handlers = {
      queued: () => {
        studio.job ||= message.job;
        this.position = message.position;
      },
      started: () => this.#started(message),
      plan: () => live?.job === message.job && live.plan(message),
      patch: () => live?.job === message.job && this.#patch(message),
      done: () => this.#done(message),
      error: () => {
        studio.job = null;
        toast(message.message, "error");
      },
      project: () => studio.listed(message),
      state: () => studio.job === null && project.told(message).catch(studio.complain),
    };
    handlers[message.type]?.();
    studio.refresh();
  }

  #started(message) {
    const { studio } = this,
      fresh = message.mode === "new";
    studio.job = message.job;
    studio.live = new Live(message, studio.piece);
    studio.select();
    if (fresh) studio.player.seek(0);
    studio.roll.measure();
    if (fresh) studio.roll.fit();
    say(t("composing"));
  }

  #patch(message) {
    const { live, following, playing, roll, strip } = this.studio;
    live.patch(message, performance.now());
    if (message.sample === live.shownSample && following && !playing && live.generators[0] === "ar")
      roll.reveal(message.tick);
    if (live.num_samples > 1) strip.paint();
  }

  async #done({ states, stopped, seconds }) {
    const { studio } = this,
      { project } = studio;
    try {
      await project.refresh();
      await Promise.all(states.map((id) => project.load(id)));
    } catch (error) {
      studio.complain(error);
    }
    if (studio.live) studio.live.states = states;
    studio.job = null;
    const n = project.pieces.get(states[0])?.notes.length ?? 0;
    const place = [...states, project.states.get(states[0])?.parent];
    if (states.length && !place.includes(project.number(project.head))) toast(t("composed.beside"));
    if (states.length > 1) await studio.strip.show(states[0]);
    say(
      states.length > 1
        ? t("strip.choose", { n: states.length })
        : t(stopped ? "stopped" : "composed", { seconds: seconds?.toFixed(1) ?? "?", n }),
    );
    studio.roll.measure();
    if (studio.live?.mode === "new") studio.roll.fit();
    studio.refresh();
  }

  /** Shows once more how the last piece was composed. */
  replay() {
    this.studio.moving?.replay(performance.now());
    this.studio.roll.invalidate();
  }
}
