/**
 * A project: a tree of states.  What a person does counts at once; a queue tells the server in the same order.
 *
 * While the server cannot be reached the queue waits, also in the browser's storage, and is sent when it is back.
 * States that the server has not numbered yet have negative ids.
 */
import { Refused, get, post, put, request } from "./api.js";
import { LANES, empty, read, write } from "./document.js";

const storage = {
  key: (project) => `fractalgen.queue.${project}`,
  load: (project) => JSON.parse(localStorage.getItem(storage.key(project)) ?? "[]"),
  save(project, queue) {
    try {
      if (queue.length) localStorage.setItem(storage.key(project), JSON.stringify(queue));
      else localStorage.removeItem(storage.key(project));
    } catch {} // storage is full or forbidden: the queue lives as long as the page
  },
};

/** In what waits, a state is called otherwise. */
function rename(queue, id, to) {
  for (const item of queue) {
    if (item.parent === id) item.parent = to;
    if (item.head === id) item.head = to;
  }
}

/** What a document has in its lanes and the one before it has not: `[[lane, tick, ...]]`. */
function written(document, before) {
  const rows = (lane) => document[lane].filter((row) => !before[lane].some((old) => String(old) === String(row)));
  return LANES.flatMap((lane) => rows(lane).map((row) => [lane, ...row]));
}

/** Entries of lanes become again what they were before, where a document still has them. */
function takeBack(document, entries, before) {
  for (const [lane, ...wrong] of entries)
    document[lane] = document[lane].flatMap((row) =>
      String(row) === String(wrong) ? before[lane].filter(([tick]) => tick === row[0]) : [row],
    );
}

/** Events: "change" (head, document or states), "status" (queue, connection, gone), "refused" (`detail`: the error). */
export class Project extends EventTarget {
  id = null;
  name = "";
  head = 0;
  states = new Map();
  pieces = new Map([[0, empty()]]);
  queue = [];
  online = true;
  gone = false; // removed by somebody else: the piece is left, in this page
  #numbers = new Map(); // ids of this page -> ids of the server
  #last = new Map(); // of each state the child that was visited last
  #sending = null;
  #temporary = 0;
  #moves = Promise.resolve(); // one after the other: a piece may have to be loaded first
  #moving = 0; // how many are not done
  #done = 0; // edits and moves: an answer of the server that was asked for before one is too old
  #edits = 0; // and projects opened: a move that was asked for before one is too old

  get piece() {
    return this.pieces.get(this.head);
  }

  /** Whether something is left to load or to save. */
  get busy() {
    return this.queue.length > 0 || this.#moving > 0;
  }

  async open(id) {
    const answer = await get(`/projects/${encodeURIComponent(id)}`);
    this.#done++;
    this.#edits++;
    Object.assign(this, { id: answer.id, name: answer.name, gone: false, queue: storage.load(answer.id) });
    this.#last.clear();
    this.#numbers.clear();
    this.#temporary = Math.min(0, ...this.queue.map(({ id: own }) => own ?? 0));
    this.pieces = new Map([[0, empty()]]);
    this.#take(answer);
    for (const item of this.queue.slice()) this.#replay(item);
    this.#changed();
    this.#send();
  }

  async rename(name) {
    await request("PATCH", `/projects/${this.id}`, { name });
    this.name = name;
  }

  /** The server tells that a state is new or became the head; that may have been this page. */
  async told({ state, head }) {
    this.latest = { state: state.id, head };
    if (this.queue.length) return;
    if (!this.states.has(state.id) || head !== this.head) await this.refresh();
  }

  /** What the server has, after somebody else changed it. */
  async refresh() {
    while (!this.queue.length) {
      const done = this.#done,
        answer = await this.#answer();
      if (!answer) return;
      if (done !== this.#done) continue;
      this.#take(answer);
      return this.#changed();
    }
  }

  /** What the server says of the project; null if it was removed. */
  async #answer(id = this.id) {
    try {
      return await get(`/projects/${id}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      if (id === this.id) this.lose();
      return null;
    }
  }

  /** It was removed. */
  lose() {
    this.gone = true;
    this.dispatchEvent(new Event("status"));
  }

  /** A new project with the piece of one that was removed; resolves to its id. */
  async rescue(label) {
    const { id, name, piece } = this,
      made = await post("/projects", { name });
    await post(`/projects/${made.id}/states`, { parent: 0, label, document: write(piece) });
    this.queue = [];
    storage.save(id, []);
    return made.id;
  }

  #take({ states, head, redo, document }) {
    this.states = new Map(states.map((state) => [state.id, state]));
    this.pieces.set(head, read(document));
    this.#visit(head);
    if (redo != null) this.#last.set(head, redo);
  }

  #replay({ id, parent, label, time, document, head }) {
    if (document) {
      this.states.set(id, { id, parent, label, kind: "edit", time });
      this.pieces.set(id, read(document));
    }
    const now = document ? id : head;
    if (this.pieces.has(now)) this.#visit(now);
  }

  /** An edit is a new state.  Edits with the same `merge`, shortly one after the other, are one state. */
  commit(label, piece, { merge = null } = {}) {
    const before = this.queue.at(-1);
    this.#done++;
    this.#edits++;
    if (merge && before?.merge === merge && before.id === this.head && !before.sent) {
      Object.assign(before, { document: write(piece), due: Date.now() + 500 });
    } else {
      const id = --this.#temporary,
        time = Date.now() / 1000;
      this.states.set(id, { id, parent: this.head, label, kind: "edit", time, group: null });
      const item = { id, parent: this.head, label, time, document: write(piece), merge };
      this.queue.push({ ...item, due: merge ? Date.now() + 500 : 0 });
      this.#visit(id);
    }
    this.pieces.set(this.head, piece);
    this.#changed();
    this.#send();
  }

  get canUndo() {
    return this.states.get(this.head)?.parent != null;
  }

  get canRedo() {
    return this.#next() !== undefined;
  }

  undo() {
    return this.#move(() => this.states.get(this.head)?.parent);
  }

  redo() {
    return this.#move(() => this.#next());
  }

  /** Returns to any state. */
  go(id) {
    return this.#move(() => this.number(id));
  }

  /** Moves to the state that `where()` names when its turn comes; resolves to the state that was left, if one was. */
  #move(where) {
    const edits = this.#edits;
    const move = async () => {
      const id = where(),
        left = this.states.get(this.head);
      if (id == null || edits !== this.#edits) return null;
      await this.load(id);
      if (edits !== this.#edits) return null; // an edit came first
      this.#done++;
      this.#visit(id);
      this.queue.push({ head: id, due: 0 });
      this.#changed();
      this.#send();
      return left;
    };
    this.#moving++;
    const moved = this.#moves.then(move).finally(() => this.#moving--);
    this.#moves = moved.catch(() => {});
    return moved;
  }

  #next() {
    const last = this.#last.get(this.head);
    if (this.states.has(last)) return last;
    const children = [...this.states.values()].filter(({ parent }) => parent === this.head);
    return children.at(-1)?.id;
  }

  /** The piece of a state. */
  async load(id) {
    const { pieces } = this; // another project may be opened meanwhile
    if (!pieces.has(id)) {
      const { document } = await get(`/projects/${this.id}/states/${this.number(id)}`);
      pieces.set(id, read(document));
    }
    return pieces.get(id);
  }

  /** The server's number of a state. */
  number(id) {
    return this.#numbers.get(id) ?? id;
  }

  /** Resolves when the server knows everything. */
  async saved() {
    await this.#moves;
    for (const item of this.queue) item.due = 0;
    while (this.queue.length && !this.gone) {
      await this.#send();
      if (this.queue.length) await new Promise((after) => setTimeout(after, 300));
    }
  }

  /** Try again at once. */
  back() {
    this.online = true;
    this.#send();
  }

  #visit(id) {
    this.head = id;
    for (let at = id, up; (up = this.states.get(at)?.parent) != null; at = up) this.#last.set(up, at);
  }

  #changed() {
    if (this.queue.length) storage.save(this.id, this.queue); // another page may have kept something
    this.dispatchEvent(new Event("change"));
  }

  #send() {
    this.#sending ??= this.#drain().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #drain() {
    const { id: project, queue } = this;
    this.dispatchEvent(new Event("status"));
    let told = null;
    for (let item; (item = queue[0]) && queue === this.queue && !this.gone;) {
      const rest = item.due - Date.now();
      if (rest > 0) await new Promise((after) => setTimeout(after, rest));
      if (item.due > Date.now()) continue;
      item.sent = true;
      try {
        if (item.document) await this.#sendEdit(project, queue, item);
        else await put(`/projects/${project}/head`, { state: this.number(item.head) });
        this.online = true;
      } catch (error) {
        if (!(error instanceof Refused)) {
          this.online = false;
          setTimeout(() => this.#send(), 1500);
          break;
        }
        if (error.status === 404 && !(await this.#answer(project).catch(() => true))) return;
        // what follows an edit that is refused may rest on it
        if (error.message !== told) this.dispatchEvent(new CustomEvent("refused", { detail: error }));
        told = error.message;
        if (error.status !== 400) queue.length = 1; // what follows rests on it
        this.latest = { state: NaN };
      }
      queue.shift();
      storage.save(project, queue);
    }
    const { latest } = this;
    if (!queue.length && latest && !this.states.has(latest.state)) await this.refresh().catch(() => {});
    this.dispatchEvent(new Event("status"));
  }

  async #sendEdit(project, queue, item) {
    const { id, label, document } = item,
      parent = this.number(item.parent);
    try {
      const { state } = await post(`/projects/${project}/states`, { parent, label, document });
      rename(queue, id, state.id);
      if (this.id === project) this.#adopt(id, state); // else another one was opened meanwhile
    } catch (error) {
      if (error.status === 400) {
        const { document: before } = await get(`/projects/${project}/states/${parent}`);
        error.wrong = written(document, before);
        error.alone = queue === this.queue && queue.length === 1; // nothing was done since
        this.#leaveOut(project, queue, item, error.wrong, before);
      }
      throw error;
    }
  }

  /** The server refuses what an edit says: what it wrote into the lanes is left out of all that follows. */
  #leaveOut(project, queue, { id, parent }, wrong, before) {
    rename(queue, id, parent);
    const later = queue.slice(1).filter((item) => item.document);
    for (const { document } of later) takeBack(document, wrong, before);
    if (this.id !== project) return;
    for (const item of later) this.pieces.set(item.id, read(item.document));
    for (const state of this.states.values()) if (state.parent === id) state.parent = parent;
    this.states.delete(id);
    this.pieces.set(parent, read(before)); // after a reload it may be missing
    if (this.head === id) this.#visit(parent);
  }

  /** The server has numbered a state of this page. */
  #adopt(id, state) {
    this.#numbers.set(id, state.id);
    this.states.delete(id);
    this.states.set(state.id, state);
    this.pieces.set(state.id, this.pieces.get(id));
    this.pieces.delete(id);
    for (const one of this.states.values()) if (one.parent === id) one.parent = state.id;
    if (this.head === id) this.head = state.id;
    for (const [up, down] of this.#last) {
      if (down === id) this.#last.set(up, state.id);
      if (up === id) {
        this.#last.delete(id);
        this.#last.set(state.id, down);
      }
    }
    this.dispatchEvent(new Event("change"));
  }
}
